-- The journal's one statement, and what settles it after a lost acknowledgement. See dbosflow/_runtime/journal/journal.py.

-- name: batch (written whole or not at all)
-- The sections in -- [ ] are left out when a batch has none of their rows: each shape is a statement of its own, prepared once.
-- Locks: the worker's own row FOR KEY SHARE, which a death in progress (FOR UPDATE) makes it wait for.
-- Arrays are unnested side by side in a SELECT list, the shorter filled up with nulls: in FROM each would go through a
-- tuplestore of its own, which took as long as the rest of the statement. A batch of one row in each section has plain
-- values in their place: batch.py writes `unnest(:x::text[])` as `:x::text` then. With one section that writes it is
-- that INSERT or UPDATE alone, with `lone_gate` for its gate.
-- Indexes: the primary keys; `moved` is one backward probe of stream_block's for each stream. IS NOT DISTINCT FROM keeps
-- the planner from workflow_owned, by which it would join every run of the worker with every row of the batch.
WITH lease AS MATERIALIZED (
    SELECT id FROM dbosflow.worker WHERE id = :worker_id AND state = 'live' FOR KEY SHARE
)
-- [runs
, mine AS MATERIALIZED (
    SELECT w.id, w.cancel_requested_at IS NOT NULL AS cancelled
    FROM lease
    CROSS JOIN (
        SELECT unnest(:run_ids::text[]) AS id, unnest(:run_epochs::integer[]) AS epoch
    ) AS r
    JOIN dbosflow.workflow w ON w.id = r.id
    WHERE w.worker_id IS NOT DISTINCT FROM lease.id AND w.epoch = r.epoch
)
-- ]
-- [blocks
, moved AS MATERIALIZED (
    SELECT r.workflow_id
    FROM lease
    CROSS JOIN (
        SELECT unnest(:tail_ids::text[]) AS workflow_id, unnest(:tail_keys::text[]) AS key,
               unnest(:tail_offsets::bigint[]) AS "offset"
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
-- Behind a pooler, where a failover breaks no connection of ours.
      AND left(pg_walfile_name(pg_current_wal_lsn()), 8) = :timeline::text
-- ]
-- [runs
      AND (SELECT count(*) FROM mine) = cardinality(:run_ids::text[])
-- ]
-- [blocks
      AND NOT EXISTS (SELECT FROM moved)
-- ]
-- [ends
-- What is to be cancelled ends as cancelled or not at all.
      AND (NOT EXISTS (SELECT FROM mine WHERE cancelled)
           OR NOT EXISTS (
               SELECT FROM (
                   SELECT unnest(:end_ids::text[]) AS id, unnest(:end_statuses::text[]) AS status
               ) AS e
               WHERE e.status <> 'cancelled' AND e.id = ANY(ARRAY(SELECT id FROM mine WHERE cancelled))
           ))
-- ]
)
-- [starts
, started AS (
    INSERT INTO dbosflow.workflow
        (id, name, status, queue, priority, input, parent_id, parent_key, input_streams, epoch, worker_id, started_at)
    SELECT s.id, s.name, CASE WHEN s.owned THEN 'running' ELSE 'queued' END, s.queue, s.priority, s.input::json,
           s.parent_id, s.parent_key,
           CASE WHEN s.input_streams IS NOT NULL THEN ARRAY(SELECT json_array_elements_text(s.input_streams::json)) END,
           CASE WHEN s.owned THEN 1 ELSE 0 END, CASE WHEN s.owned THEN gate.id END,
           CASE WHEN s.owned THEN now() END
    FROM (
        SELECT unnest(:start_ids::text[]) AS id, unnest(:start_names::text[]) AS name,
               unnest(:start_queues::text[]) AS queue, unnest(:start_priorities::integer[]) AS priority,
               unnest(:start_inputs::text[]) AS input, unnest(:start_parent_ids::text[]) AS parent_id,
               unnest(:start_parent_keys::text[]) AS parent_key,
               unnest(:start_input_streams::text[]) AS input_streams, unnest(:start_owned::boolean[]) AS owned
    ) AS s
    CROSS JOIN gate
    ORDER BY s.id
    ON CONFLICT (id) DO NOTHING
    RETURNING id
)
-- ]
-- [records
, recorded AS (
    INSERT INTO dbosflow.step
        (workflow_id, key, kind, epoch, seq, turn, attempt, output, error, child_id, wake_at, started_at,
         loop_key, loop_offset, loop_next)
    SELECT r.workflow_id, r.key, r.kind, r.epoch, r.seq, r.turn, r.attempt, r.output::json, r.error::json, r.child_id,
           now() + r.delay * interval '1 second', now() - r.elapsed * interval '1 second',
           r.loop_key, r.loop_offset, r.loop_next
    FROM (
        SELECT unnest(:record_ids::text[]) AS workflow_id, unnest(:record_keys::text[]) AS key,
               unnest(:record_kinds::text[]) AS kind, unnest(:record_epochs::integer[]) AS epoch,
               unnest(:record_seqs::integer[]) AS seq, unnest(:record_turns::integer[]) AS turn,
               unnest(:record_attempts::text[]) AS attempt, unnest(:record_outputs::text[]) AS output,
               unnest(:record_errors::text[]) AS error, unnest(:record_children::text[]) AS child_id,
               unnest(:record_delays::double precision[]) AS delay,
               unnest(:record_elapsed::double precision[]) AS elapsed,
               unnest(:record_loop_keys::text[]) AS loop_key,
               unnest(:record_loop_offsets::bigint[]) AS loop_offset,
               unnest(:record_loop_nexts::bigint[]) AS loop_next
    ) AS r
    CROSS JOIN gate
)
-- ]
-- [blocks
, appended AS (
    INSERT INTO dbosflow.stream_block
        (workflow_id, key, "offset", count, kind, values, bytes, producer, producer_seq, attempt, epoch, checksum)
    SELECT b.workflow_id, b.key, b."offset", b.count, b.kind, b.values::json, b.bytes, b.producer, b.producer_seq,
           b.attempt, b.epoch, b.checksum
    FROM (
        SELECT unnest(:block_ids::text[]) AS workflow_id, unnest(:block_keys::text[]) AS key,
               unnest(:block_offsets::bigint[]) AS "offset", unnest(:block_counts::integer[]) AS count,
               unnest(:block_kinds::text[]) AS kind, unnest(:block_values::text[]) AS values,
               unnest(:block_bytes::integer[]) AS bytes, unnest(:block_producers::text[]) AS producer,
               unnest(:block_producer_seqs::bigint[]) AS producer_seq,
               unnest(:block_attempts::text[]) AS attempt, unnest(:block_epochs::integer[]) AS epoch,
               unnest(:block_checksums::integer[]) AS checksum
    ) AS b
    CROSS JOIN gate
)
-- ]
-- [inputs
-- What outsiders write to ends with its workflow, used or not, at the tail that this statement sees. If a writer is
-- faster, the primary key says so, and the whole is sent again. Sorted, as the writers are: no deadlock.
, closed AS (
    INSERT INTO dbosflow.stream_block
        (workflow_id, key, "offset", count, kind, values, bytes, producer, producer_seq, epoch)
    SELECT i.workflow_id, i.key, coalesce(tail.next, 0), 1, i.kind, i.values::json, i.bytes, '', 0, i.epoch
    FROM (
        SELECT unnest(:input_ids::text[]) AS workflow_id, unnest(:input_keys::text[]) AS key,
               unnest(:input_kinds::text[]) AS kind, unnest(:input_values::text[]) AS values,
               unnest(:input_bytes::integer[]) AS bytes, unnest(:input_epochs::integer[]) AS epoch
    ) AS i
    CROSS JOIN gate
    LEFT JOIN LATERAL (
        SELECT b."offset" + b.count AS next, b.kind
        FROM dbosflow.stream_block b
        WHERE b.workflow_id = i.workflow_id AND b.key = i.key
        ORDER BY b."offset" DESC
        LIMIT 1
    ) AS tail ON true
    WHERE tail.kind IS NULL OR tail.kind NOT IN ('complete', 'error', 'cancelled')
    ORDER BY i.workflow_id, i.key
)
-- ]
-- [ends
-- A cancel that commits after this statement's snapshot is seen by the UPDATE alone, which then ends that row not.
, ended AS (
    UPDATE dbosflow.workflow w
    SET status = e.status, output = e.output::json, error = e.error::json, worker_id = NULL, wake_at = NULL,
        ended_at = CASE WHEN e.status <> 'blocked' THEN now() END
    FROM (
        SELECT unnest(:end_ids::text[]) AS id, unnest(:end_epochs::integer[]) AS epoch,
               unnest(:end_statuses::text[]) AS status, unnest(:end_outputs::text[]) AS output,
               unnest(:end_errors::text[]) AS error
    ) AS e
    CROSS JOIN gate
    WHERE w.id = e.id AND w.worker_id IS NOT DISTINCT FROM gate.id AND w.epoch = e.epoch
      AND (w.cancel_requested_at IS NULL OR e.status = 'cancelled')
    RETURNING w.id
)
-- ]
SELECT EXISTS (SELECT FROM lease) AS leased, EXISTS (SELECT FROM gate) AS written
-- [ends
-- Then nothing may be written of the rest: the division by zero rolls all back, and the whole is sent again.
     , CASE WHEN EXISTS (SELECT FROM gate)
            THEN 1 / ((SELECT count(*) FROM ended) = cardinality(:end_ids::text[]))::integer END AS whole
-- ]
-- [timeline
     , left(pg_walfile_name(pg_current_wal_lsn()), 8) AS timeline
-- ]
-- [runs
     , CASE WHEN NOT EXISTS (SELECT FROM gate) THEN array_to_json(ARRAY(SELECT id FROM mine)) END AS mine
     , (SELECT json_agg(id) FROM mine WHERE cancelled) AS cancelled
-- ]
-- [blocks
     , CASE WHEN NOT EXISTS (SELECT FROM gate) THEN array_to_json(ARRAY(SELECT workflow_id FROM moved)) END AS moved
-- ]
-- [starts
     , CASE WHEN (SELECT count(*) FROM started) < cardinality(:start_ids::text[])
            THEN array_to_json(ARRAY(SELECT id FROM started)) END AS started
-- ]
;

-- name: lone_gate (the gate of a batch of one row, as a part of the statement that writes it)
-- It says yes or no, as the number of rows written, and not why: then the whole batch is sent, and says. It is shut by a
-- cancel that the run was not notified of, too, so that the answer does it.
SELECT lease.id
FROM (SELECT id FROM dbosflow.worker WHERE id = :worker_id AND state = 'live' FOR KEY SHARE) AS lease
-- [runs
JOIN dbosflow.workflow mine
    ON mine.id = :run_ids::text AND mine.worker_id IS NOT DISTINCT FROM lease.id AND mine.epoch = :run_epochs::integer
       AND mine.cancel_requested_at IS NULL
-- ]
-- [blocks
LEFT JOIN LATERAL (
    SELECT b."offset" + b.count AS next, b.kind
    FROM dbosflow.stream_block b
    WHERE b.workflow_id = :tail_ids::text AND b.key = :tail_keys::text
    ORDER BY b."offset" DESC
    LIMIT 1
) AS tail ON true
-- ]
WHERE true
-- [timeline
  AND left(pg_walfile_name(pg_current_wal_lsn()), 8) = :timeline::text
-- ]
-- [blocks
  AND :tail_offsets::bigint = coalesce(tail.next, 0)
  AND (tail.kind IS NULL OR tail.kind NOT IN ('complete', 'error', 'cancelled'))
-- ]
;

-- The witnesses lock the worker's row, which is written to the log: so their answer comes with a commit of its own, and what
-- they saw is as durable as that. A session that was ended while it waited for a synchronous standby, or a server that
-- crashed meanwhile, leaves commits which everybody sees and the standby does not have.

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
