-- The journal's one statement, and what settles it after a lost acknowledgement. See dbosflow/_runtime/journal.py.

-- name: batch (written whole or not at all)
-- The sections in -- [ ] are left out when a batch has none of their rows: each shape is a statement of its own, prepared once.
-- Locks: the lane's own worker row FOR KEY SHARE, which a death in progress (FOR UPDATE) makes it wait for.
-- Indexes: the primary keys; `moved` is one backward probe of stream_block's for each stream. IS NOT DISTINCT FROM keeps
-- the planner from workflow_owned, by which it would join every run of the lane with every row of the batch.
WITH lease AS MATERIALIZED (
    SELECT id FROM dbosflow.worker WHERE id = :worker_id AND state = 'live' FOR KEY SHARE
)
-- [runs
, mine AS MATERIALIZED (
    SELECT w.id
    FROM lease
    CROSS JOIN unnest(:run_ids::text[], :run_epochs::integer[]) AS r (id, epoch)
    JOIN dbosflow.workflow w ON w.id = r.id
    WHERE w.worker_id IS NOT DISTINCT FROM lease.id AND w.epoch = r.epoch
)
-- ]
-- [blocks
, moved AS MATERIALIZED (
    SELECT r.workflow_id
    FROM lease
    CROSS JOIN unnest(:tail_ids::text[], :tail_keys::text[], :tail_offsets::bigint[]) AS r (workflow_id, key, "offset")
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
-- [runs
      AND (SELECT count(*) FROM mine) = cardinality(:run_ids::text[])
-- ]
-- [blocks
      AND NOT EXISTS (SELECT FROM moved)
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
    FROM unnest(:start_ids::text[], :start_names::text[], :start_queues::text[], :start_priorities::integer[],
                :start_inputs::text[], :start_parent_ids::text[], :start_parent_keys::text[],
                :start_input_streams::text[], :start_owned::boolean[])
         AS s (id, name, queue, priority, input, parent_id, parent_key, input_streams, owned)
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
    FROM unnest(:record_ids::text[], :record_keys::text[], :record_kinds::text[], :record_epochs::integer[],
                :record_seqs::integer[], :record_turns::integer[], :record_attempts::text[], :record_outputs::text[],
                :record_errors::text[], :record_children::text[], :record_delays::double precision[],
                :record_elapsed::double precision[], :record_loop_keys::text[], :record_loop_offsets::bigint[],
                :record_loop_nexts::bigint[])
         AS r (workflow_id, key, kind, epoch, seq, turn, attempt, output, error, child_id, delay, elapsed,
               loop_key, loop_offset, loop_next)
    CROSS JOIN gate
)
-- ]
-- [blocks
, appended AS (
    INSERT INTO dbosflow.stream_block
        (workflow_id, key, "offset", count, kind, values, bytes, producer, producer_seq, attempt, epoch)
    SELECT b.workflow_id, b.key, b."offset", b.count, b.kind, b.values::json, b.bytes, b.producer, b.producer_seq,
           b.attempt, b.epoch
    FROM unnest(:block_ids::text[], :block_keys::text[], :block_offsets::bigint[], :block_counts::integer[],
                :block_kinds::text[], :block_values::text[], :block_bytes::integer[], :block_producers::text[],
                :block_producer_seqs::bigint[], :block_attempts::text[], :block_epochs::integer[])
         AS b (workflow_id, key, "offset", count, kind, values, bytes, producer, producer_seq, attempt, epoch)
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
    FROM unnest(:input_ids::text[], :input_keys::text[], :input_kinds::text[], :input_values::text[],
                :input_bytes::integer[], :input_epochs::integer[]) AS i (workflow_id, key, kind, values, bytes, epoch)
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
, ended AS (
    UPDATE dbosflow.workflow w
    SET status = e.status, output = e.output::json, error = e.error::json, worker_id = NULL, wake_at = NULL,
        ended_at = CASE WHEN e.status <> 'blocked' THEN now() END
    FROM unnest(:end_ids::text[], :end_epochs::integer[], :end_statuses::text[], :end_outputs::text[], :end_errors::text[])
         AS e (id, epoch, status, output, error)
    CROSS JOIN gate
    WHERE w.id = e.id AND w.worker_id IS NOT DISTINCT FROM gate.id AND w.epoch = e.epoch
)
-- ]
SELECT EXISTS (SELECT FROM lease) AS leased, EXISTS (SELECT FROM gate) AS written
-- [runs
     , CASE WHEN NOT EXISTS (SELECT FROM gate) THEN array_to_json(ARRAY(SELECT id FROM mine)) END AS mine
-- ]
-- [blocks
     , CASE WHEN NOT EXISTS (SELECT FROM gate) THEN array_to_json(ARRAY(SELECT workflow_id FROM moved)) END AS moved
-- ]
-- [starts
     , array_to_json(ARRAY(SELECT id FROM started)) AS started
-- ]
;

-- name: witness_record
SELECT 1 FROM dbosflow.step WHERE workflow_id = :workflow_id AND key = :key AND epoch = :epoch;

-- name: witness_block
SELECT 1 FROM dbosflow.stream_block
WHERE workflow_id = :workflow_id AND key = :key AND "offset" = :offset AND epoch = :epoch;

-- name: witness_end
SELECT 1 FROM dbosflow.workflow WHERE id = :workflow_id AND epoch = :epoch AND worker_id IS NULL;

-- name: timeline (of the server's WAL: it changes with a failover)
SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8) AS timeline;

-- name: session (of a lane's connection)
-- One plan for every size of batch, of index probes: plans made while a table is empty would scan it.
SELECT set_config('synchronous_commit', 'on', false), set_config('statement_timeout', '0', false),
       set_config('idle_in_transaction_session_timeout', :idle_limit::text, false),
       set_config('plan_cache_mode', 'force_generic_plan', false), set_config('enable_seqscan', 'off', false),
       set_config('jit', 'off', false);

-- name: session_pool (enqueues and inputs are acknowledged over it)
-- A plan that was made while a table was empty stays for as long as nobody analyzes it: it scans no table.
SELECT set_config('synchronous_commit', 'on', false), set_config('enable_seqscan', 'off', false),
       set_config('jit', 'off', false);

-- name: session_notifier (hints need no flush)
SELECT set_config('synchronous_commit', 'off', false);

-- name: session_reader (of the hub's fetches, which would take longer to plan than to run)
SELECT set_config('plan_cache_mode', 'force_generic_plan', false), set_config('enable_seqscan', 'off', false),
       set_config('jit', 'off', false);
