-- The journal's one statement, and the witnesses that decide after a lost acknowledgement: see dbosflow/_runtime/journal/journal.py.
-- The statement has several forms, which dbosflow/_store/batch.py composes of the parts here: a variable (:name) stands for
-- a parameter, or for a part. In psql set either; for a batch of one record:
-- \set record_key '''step#0''::text', \set record_epoch 1 ...

-- name: batch (written whole or not at all)
-- The sections in -- [ ] are left out when a batch has none of their rows: each shape is a statement of its own, prepared once.
-- The variables :started ... :ended are the parts below, each with its :gate. A column of the rows (:run_epoch) is
-- `unnest` of an array, the number of rows (:run_count) its `cardinality`. Arrays are unnested side by side in a SELECT
-- list, the shorter filled up with nulls: in FROM each would go through a tuplestore of its own, which took as long as the
-- rest of the statement. A batch of one row in each section has plain values in their place, and the number 1.
-- Locks: the worker's own row FOR KEY SHARE, which a death in progress (FOR UPDATE) makes it wait for.
-- Indexes: the primary keys; `moved` is one backward probe of stream_block's for each stream. IS NOT DISTINCT FROM keeps
-- the planner from workflow_owned, by which it would join every run of the worker with every row of the batch.
WITH lease AS MATERIALIZED (
    SELECT id FROM dbosflow.worker WHERE id = :worker_id AND state = 'live' FOR KEY SHARE
)
-- [runs
, mine AS MATERIALIZED (
    SELECT w.id, w.cancel_requested_at IS NOT NULL AS cancelled, w.cancel_reason, w.timed_out
    FROM lease
    CROSS JOIN (
        SELECT :run_workflow_id AS id, :run_epoch AS epoch
    ) AS r
    JOIN dbosflow.workflow w ON w.id = r.id
    WHERE w.worker_id IS NOT DISTINCT FROM lease.id AND w.epoch = r.epoch
)
-- ]
-- [tails
, moved AS MATERIALIZED (
    SELECT r.workflow_id
    FROM lease
    CROSS JOIN (
        SELECT :tail_workflow_id AS workflow_id, :tail_key AS key, :tail_offset AS "offset"
    ) AS r
    LEFT JOIN LATERAL (
        SELECT b."offset" + b.count AS next, b.kind
        FROM dbosflow.stream_block b
        WHERE b.workflow_id = r.workflow_id AND b.key = r.key
        ORDER BY b."offset" DESC
        LIMIT 1
    ) AS tail ON true
    WHERE r."offset" <> coalesce(tail.next, 0) OR tail.kind IN ('complete', 'error', 'cancelled')
)
-- ]
, gate AS MATERIALIZED (
    SELECT lease.id FROM lease
    WHERE true
-- [timeline
-- Behind a pooler, where a failover does not break our connection.
      AND left(pg_walfile_name(pg_current_wal_lsn()), 8) = :timeline::text
-- ]
-- [runs
      AND (SELECT count(*) FROM mine) = :run_count
-- ]
-- [tails
      AND NOT EXISTS (SELECT FROM moved)
-- ]
-- [ends
-- A run that is to be cancelled, or whose deadline has passed, ends so or not at all.
      AND (NOT EXISTS (SELECT FROM mine WHERE cancelled)
           OR NOT EXISTS (
               SELECT FROM (
                   SELECT :end_workflow_id AS id, :end_status AS status
               ) AS e
               WHERE e.status NOT IN ('cancelled', 'timed out') AND e.id = ANY(ARRAY(SELECT id FROM mine WHERE cancelled))
           ))
-- ]
-- [continues
-- Nor is one continued as new.
      AND NOT EXISTS (SELECT FROM mine WHERE cancelled AND id = ANY(ARRAY(SELECT :continue_workflow_id)))
-- ]
)
-- [starts
, started AS (:started)
-- ]
-- [options
, attributed AS (:attributed)
-- ]
-- [records
, recorded AS (:recorded)
-- ]
-- [blocks
, appended AS (:appended)
-- ]
-- [inputs
, closed AS (:closed)
-- ]
-- [ends
, ended AS (:ended)
-- ]
-- [suspends
, suspended AS (:suspended)
-- ]
-- [awaits
, awaited AS (:awaited)
-- ]
-- [continues
, continued AS (:continued)
-- ]
-- [attributes
, removed AS (
    DELETE FROM dbosflow.attribute a
    USING (SELECT :attribute_workflow_id AS workflow_id, :attribute_name AS name, :attribute_value AS value) AS n
    CROSS JOIN gate
    WHERE n.value IS NULL AND a.workflow_id = n.workflow_id AND a.name = n.name
)
, changed AS (:changed)
-- ]
SELECT EXISTS (SELECT FROM lease) AS leased, EXISTS (SELECT FROM gate) AS written
-- [ends
-- If a cancel came first, the rest may not be written either: the division by zero rolls all back, and all is sent again.
     , CASE WHEN EXISTS (SELECT FROM gate)
            THEN 1 / ((SELECT count(*) FROM ended) = :end_count)::integer END AS whole
-- ]
-- [suspends
-- Only another copy of this statement, whose answer was lost, can have been faster: the next try shows that.
     , CASE WHEN EXISTS (SELECT FROM gate)
            THEN 1 / ((SELECT count(*) FROM suspended) = :suspend_count)::integer END AS all_suspended
-- ]
-- [continues
-- As with an end: a cancel came first.
     , CASE WHEN EXISTS (SELECT FROM gate)
            THEN 1 / ((SELECT count(*) FROM continued) = :continue_count)::integer END AS all_continued
-- ]
-- [timeline
     , left(pg_walfile_name(pg_current_wal_lsn()), 8) AS timeline
-- ]
-- [runs
     , CASE WHEN NOT EXISTS (SELECT FROM gate) THEN array_to_json(ARRAY(SELECT id FROM mine)) END AS mine
     , (SELECT json_agg(json_build_array(id, cancel_reason, timed_out)) FROM mine WHERE cancelled) AS cancelled
-- ]
-- [tails
     , CASE WHEN NOT EXISTS (SELECT FROM gate) THEN array_to_json(ARRAY(SELECT workflow_id FROM moved)) END AS moved
-- ]
-- [starts
     , CASE WHEN (SELECT count(*) FROM started) < :start_count
            THEN array_to_json(ARRAY(SELECT id FROM started)) END AS started
-- ]
;

-- The parts that write. Their :gate is that of the batch (`gate`), which has a row if the batch may be written; or, where a
-- batch is one row in one of them, that part is the whole statement, and its gate the subquery `(:lone_gate) AS gate`.
-- The section `firsts` is there if a workflow comes whole: its start, its end, and all between them. That is written if the
-- start is: if it stands from an earlier try, so does the rest. `beside`: other runs write records or blocks, too.

-- name: started
-- The section `options` is there if a start has any of the columns in it: see dbosflow/_store/start_options.py. And the
-- section `outcomes`, if a workflow has ended before its start is written: it never has an owner.
INSERT INTO dbosflow.workflow
    (id, name, status, queue, priority, input, parent_id, parent_key, input_streams, epoch, worker_id, started_at
-- [options
     , deadline_at, max_recoveries, wake_at, units
-- ]
-- [outcomes
     , output, error, ended_at
-- ]
    )
SELECT s.id, s.name, CASE
-- [outcomes
                          WHEN s.status IS NOT NULL THEN s.status
-- ]
                          WHEN s.owned THEN 'running'
-- [options
                          WHEN due.at > now() THEN 'scheduled'
-- ]
                          ELSE 'queued' END, s.queue, s.priority, s.input::json,
       s.parent_id, s.parent_key,
       CASE WHEN s.input_streams IS NOT NULL THEN ARRAY(SELECT json_array_elements_text(s.input_streams::json)) END,
       CASE WHEN s.owned THEN 1 ELSE 0 END, CASE WHEN s.owned
-- [outcomes
                                                      AND s.status IS NULL
-- ]
                                                 THEN gate.id END,
       CASE WHEN s.owned THEN now() END
-- [options
     , least(greatest(due.at, now()) + s.timeout * interval '1 second', to_timestamp(s.deadline),
             (SELECT p.deadline_at FROM dbosflow.workflow p WHERE p.id = s.parent_id)), s.max_recoveries,
       CASE WHEN due.at > now() THEN due.at END, s.units
-- ]
-- [outcomes
     , s.output::json, s.error::json, CASE WHEN s.status IS NOT NULL THEN now() END
-- ]
FROM (
    SELECT :start_workflow_id AS id, :start_name AS name, :start_queue AS queue, :start_priority AS priority,
           :start_input AS input, :start_parent_id AS parent_id, :start_parent_key AS parent_key,
           :start_input_streams AS input_streams, :start_owned AS owned
-- [options
         , :option_timeout AS timeout, :option_deadline AS deadline, :option_max_recoveries AS max_recoveries,
           :option_delay AS delay, :option_run_at AS run_at, :option_units AS units
-- ]
-- [outcomes
         , :outcome_status AS status, :outcome_output AS output, :outcome_error AS error
-- ]
) AS s
-- [options
CROSS JOIN LATERAL (SELECT coalesce(now() + s.delay * interval '1 second', to_timestamp(s.run_at)) AS at) AS due
-- ]
CROSS JOIN :gate
ORDER BY s.id
ON CONFLICT (id) DO NOTHING
RETURNING id

-- name: attributed (only of what was really started)
INSERT INTO dbosflow.attribute (workflow_id, name, value)
SELECT s.id, a.key, a.value
FROM (
    SELECT :start_workflow_id AS id, :option_attributes AS attributes
) AS s
JOIN started ON started.id = s.id
CROSS JOIN LATERAL json_each_text(s.attributes::json) AS a (key, value)
ORDER BY s.id, a.key
ON CONFLICT (workflow_id, name) DO NOTHING

-- name: recorded
INSERT INTO dbosflow.step
    (workflow_id, key, kind, epoch, seq, turn, attempt, output, error, child_id, wake_at, started_at,
     loop_key, loop_offset, loop_next)
SELECT r.workflow_id, r.key, r.kind, r.epoch, r.seq, r.turn, r.attempt, r.output::json, r.error::json, r.child_id,
       now() + r.delay * interval '1 second', now() - r.elapsed * interval '1 second',
       r.loop_key, r.loop_offset, r.loop_next
FROM (
    SELECT :record_workflow_id AS workflow_id, :record_key AS key, :record_kind AS kind, :record_epoch AS epoch,
           :record_seq AS seq, :record_turn AS turn, :record_attempt AS attempt, :record_output AS output,
           :record_error AS error, :record_child_id AS child_id, :record_delay AS delay, :record_elapsed AS elapsed,
           :record_loop_key AS loop_key, :record_loop_offset AS loop_offset, :record_loop_next AS loop_next
) AS r
CROSS JOIN :gate
-- [firsts
WHERE r.workflow_id IN (SELECT id FROM started)
-- ]
-- [beside
   OR r.workflow_id IN (SELECT id FROM mine)
-- ]

-- name: appended
INSERT INTO dbosflow.stream_block
    (workflow_id, key, "offset", count, kind, values, bytes, producer, producer_seq, attempt, epoch, checksum, turn)
SELECT b.workflow_id, b.key, b."offset", b.count, b.kind, b.values::json, b.bytes, b.producer, b.producer_seq,
       b.attempt, b.epoch, b.checksum, b.turn
FROM (
    SELECT :block_workflow_id AS workflow_id, :block_key AS key, :block_offset AS "offset", :block_value_count AS count,
           :block_kind AS kind, :block_values AS values, :block_size AS bytes, :block_producer AS producer,
           :block_producer_seq AS producer_seq, :block_attempt AS attempt, :block_epoch AS epoch,
           :block_checksum AS checksum, :block_turn AS turn
) AS b
CROSS JOIN :gate
-- [firsts
WHERE b.workflow_id IN (SELECT id FROM started)
-- ]
-- [beside
   OR b.workflow_id IN (SELECT id FROM mine)
-- ]

-- name: closed
-- The streams of outside writers end with their workflow, used or not, at the tail that this statement sees. If a writer
-- is faster, the primary key is violated, and all is sent again. Sorted, as the writers are: no deadlock.
INSERT INTO dbosflow.stream_block
    (workflow_id, key, "offset", count, kind, values, bytes, producer, producer_seq, epoch)
SELECT i.workflow_id, i.key, coalesce(tail.next, 0), 1, i.kind, i.values::json, i.bytes, '', 0, i.epoch
FROM (
    SELECT :input_workflow_id AS workflow_id, :input_key AS key, :input_kind AS kind, :input_values AS values,
           :input_size AS bytes, :input_epoch AS epoch
) AS i
CROSS JOIN :gate
LEFT JOIN LATERAL (
    SELECT b."offset" + b.count AS next, b.kind
    FROM dbosflow.stream_block b
    WHERE b.workflow_id = i.workflow_id AND b.key = i.key
    ORDER BY b."offset" DESC
    LIMIT 1
) AS tail ON true
WHERE tail.kind IS NULL OR tail.kind NOT IN ('complete', 'error', 'cancelled')
ORDER BY i.workflow_id, i.key

-- name: ended
-- A cancel that commits after this statement's snapshot is seen by the UPDATE alone, which then does not end that row.
-- The status of a run that ends because its deadline has passed is sent as 'timed out', and stored as 'failed'.
UPDATE dbosflow.workflow w
SET status = CASE WHEN e.status = 'timed out' THEN 'failed' ELSE e.status END, output = e.output::json, error = e.error::json, worker_id = NULL, wake_at = NULL,
    ended_at = CASE WHEN e.status <> 'blocked' THEN now() END
FROM (
    SELECT :end_workflow_id AS id, :end_epoch AS epoch, :end_status AS status, :end_output AS output,
           :end_error AS error
) AS e
CROSS JOIN :gate
WHERE w.id = e.id AND w.worker_id IS NOT DISTINCT FROM gate.id AND w.epoch = e.epoch
  AND (w.cancel_requested_at IS NULL OR e.status IN ('cancelled', 'timed out'))
RETURNING w.id

-- name: suspended
-- The workflow leaves the worker's memory until what it waits for comes. A cancel is not lost in that: the CASE sees the newest
-- version of the row. Who only waits has killed no worker.
UPDATE dbosflow.workflow w
SET status = CASE WHEN w.cancel_requested_at IS NULL THEN 'waiting' ELSE 'queued' END,
    worker_id = NULL, wake_at = now() + s.delay * interval '1 second', recoveries = 0
FROM (
    SELECT :suspend_workflow_id AS id, :suspend_epoch AS epoch, :suspend_delay AS delay
) AS s
CROSS JOIN :gate
WHERE w.id = s.id AND w.worker_id IS NOT DISTINCT FROM gate.id AND w.epoch = s.epoch
RETURNING w.id, w.status

-- name: awaited
-- After the UPDATE above, whose lock keeps everybody out who removes such rows.
INSERT INTO dbosflow.waiter (workflow_id, topic, target_id, key, "offset", committed)
SELECT a.workflow_id, a.topic, a.target_id, a.key, a."offset", a.committed
FROM (
    SELECT :await_workflow_id AS workflow_id, :await_topic AS topic, :await_target_id AS target_id, :await_key AS key,
           :await_offset AS "offset", :await_committed AS committed
) AS a
JOIN suspended ON suspended.id = a.workflow_id AND suspended.status = 'waiting'
ON CONFLICT (workflow_id, topic)
DO UPDATE SET target_id = excluded.target_id, key = excluded.key, "offset" = excluded."offset",
              committed = excluded.committed

-- name: continued (the next iteration begins; its first record is among the records of the statement)
-- A cancel that commits after this statement's snapshot is seen by the UPDATE alone, as in `ended`.
UPDATE dbosflow.workflow w
SET iteration = c.iteration, input = c.input::json
FROM (
    SELECT :continue_workflow_id AS id, :continue_epoch AS epoch, :continue_iteration AS iteration,
           :continue_input AS input
) AS c
CROSS JOIN :gate
WHERE w.id = c.id AND w.worker_id IS NOT DISTINCT FROM gate.id AND w.epoch = c.epoch AND w.cancel_requested_at IS NULL
RETURNING w.id

-- name: changed (attributes that bodies set; each name of a workflow is there once. Those without a value are removed above)
INSERT INTO dbosflow.attribute (workflow_id, name, value)
SELECT n.workflow_id, n.name, n.value
FROM (
    SELECT :attribute_workflow_id AS workflow_id, :attribute_name AS name, :attribute_value AS value
) AS n
CROSS JOIN :gate
WHERE n.value IS NOT NULL
ORDER BY n.workflow_id, n.name
ON CONFLICT (workflow_id, name) DO UPDATE SET value = excluded.value

-- name: lone_gate (of one row, which is written by itself)
-- The answer is the number of rows written, without a reason: if it is none, the whole batch is sent, and gives the reason.
-- A cancel of which the run was not notified shuts the gate, too, so that the answer notifies it.
SELECT lease.id
FROM (SELECT id FROM dbosflow.worker WHERE id = :worker_id AND state = 'live' FOR KEY SHARE) AS lease
-- [runs
JOIN dbosflow.workflow mine
    ON mine.id = :run_workflow_id AND mine.worker_id IS NOT DISTINCT FROM lease.id AND mine.epoch = :run_epoch
       AND mine.cancel_requested_at IS NULL
-- ]
-- [tails
LEFT JOIN LATERAL (
    SELECT b."offset" + b.count AS next, b.kind
    FROM dbosflow.stream_block b
    WHERE b.workflow_id = :tail_workflow_id AND b.key = :tail_key
    ORDER BY b."offset" DESC
    LIMIT 1
) AS tail ON true
-- ]
WHERE true
-- [timeline
  AND left(pg_walfile_name(pg_current_wal_lsn()), 8) = :timeline::text
-- ]
-- [tails
  AND :tail_offset = coalesce(tail.next, 0)
  AND (tail.kind IS NULL OR tail.kind NOT IN ('complete', 'error', 'cancelled'))
-- ]

-- The witnesses lock the worker's row, which is written to the log: so their answer comes with a commit of its own, and what
-- they saw is as durable as that commit. A session that was ended while it waited for a synchronous standby, or a server that
-- crashed meanwhile, leaves commits which every session sees and the standby does not have.

-- name: witness_record
WITH lease AS MATERIALIZED (SELECT id FROM dbosflow.worker WHERE id = :worker_id FOR KEY SHARE)
SELECT 1 FROM lease CROSS JOIN dbosflow.step s
WHERE s.workflow_id = :workflow_id AND s.key = :key AND s.epoch = :epoch;

-- name: witness_block
WITH lease AS MATERIALIZED (SELECT id FROM dbosflow.worker WHERE id = :worker_id FOR KEY SHARE)
SELECT 1 FROM lease CROSS JOIN dbosflow.stream_block b
WHERE b.workflow_id = :workflow_id AND b.key = :key AND b."offset" = :offset AND b.epoch = :epoch;

-- name: witness_end
WITH lease AS MATERIALIZED (SELECT id FROM dbosflow.worker WHERE id = :worker_id FOR KEY SHARE)
SELECT 1 FROM lease CROSS JOIN dbosflow.workflow w
WHERE w.id = :workflow_id AND w.epoch = :epoch AND w.worker_id IS NULL;

-- name: timeline (of the server's WAL: it changes with a failover)
SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8) AS timeline;
