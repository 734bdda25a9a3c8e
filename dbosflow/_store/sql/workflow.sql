-- name: enqueue (needs no lease, because the row has no owner)
-- Sorted by id: otherwise two processes that enqueue the same ids could deadlock. The section `options` is there if a row
-- has any of the columns in it: see dbosflow/_store/start_options.py. With the section `message`, which needs that one, a
-- start may have a first message, written with the row. An id that is taken gets none here, but in a later statement.
-- [options
WITH enqueued AS (
-- ]
INSERT INTO dbosflow.workflow (id, name, status, queue, priority, input, input_streams
-- [options
     , deadline_at, max_recoveries, wake_at, units
-- ]
    )
SELECT s.id, s.name,
-- [options
       CASE WHEN due.at > now() THEN 'scheduled' ELSE
-- ]
       'queued'
-- [options
       END
-- ]
       , s.queue, s.priority, s.input::json,
       CASE WHEN s.input_streams IS NOT NULL THEN ARRAY(SELECT json_array_elements_text(s.input_streams::json)) END
-- [options
     , least(greatest(due.at, now()) + s.timeout * interval '1 second', to_timestamp(s.deadline)), s.max_recoveries,
       CASE WHEN due.at > now() THEN due.at END, s.units
-- ]
FROM unnest(:ids::text[], :names::text[], :queues::text[], :priorities::integer[], :inputs::text[],
            :input_streams::text[]
-- [options
          , :option_timeout::double precision[], :option_deadline::double precision[], :option_max_recoveries::integer[],
            :option_delay::double precision[], :option_run_at::double precision[], :option_units::integer[]
-- ]
    ) AS s (id, name, queue, priority, input, input_streams
-- [options
          , timeout, deadline, max_recoveries, delay, run_at, units
-- ]
    )
-- [options
CROSS JOIN LATERAL (SELECT coalesce(now() + s.delay * interval '1 second', to_timestamp(s.run_at)) AS at) AS due
-- ]
ORDER BY s.id
ON CONFLICT (id) DO NOTHING
RETURNING id
-- [options
), attributed AS (
    INSERT INTO dbosflow.attribute (workflow_id, name, value)
    SELECT s.id, a.key, a.value
    FROM unnest(:ids::text[], :option_attributes::text[]) AS s (id, attributes)
    JOIN enqueued ON enqueued.id = s.id
    CROSS JOIN LATERAL json_each_text(s.attributes::json) AS a (key, value)
    ORDER BY s.id, a.key
    ON CONFLICT (workflow_id, name) DO NOTHING
)
-- ]
-- [message
, sent AS (
    INSERT INTO dbosflow.stream_block
        (workflow_id, key, "offset", count, kind, values, bytes, producer, producer_seq, epoch)
    SELECT e.id, m.key, 0, 1, 'values', m.values::json, m.bytes, m.producer, 0, 0
    FROM enqueued e
    JOIN unnest(:message_ids::text[], :message_keys::text[], :message_values::text[], :message_bytes::integer[],
                :message_producers::text[]) AS m (id, key, values, bytes, producer) ON m.id = e.id
)
-- ]
-- [options
SELECT id FROM enqueued
-- ]
;

-- name: started (the row of an id that could not be inserted; runs after the insert, so it sees the winner)
SELECT id, name, status, worker_id, epoch, input::text AS input, parent_id, parent_key,
       to_json(input_streams)::text AS input_streams, iteration
FROM dbosflow.workflow WHERE id = ANY(:ids);

-- name: renew_epoch (the owner reloads its own run)
-- Here, in `release` and in `adopt` a row that is locked is skipped: a transaction of the run is being committed on another
-- connection, and all runs of the lane would wait for it. Whoever finds such a row looks again.
WITH mine AS MATERIALIZED (
    SELECT w.id FROM dbosflow.workflow w
    WHERE w.id = :workflow_id AND w.worker_id IS NOT DISTINCT FROM :worker_id::uuid AND w.epoch = :epoch
    FOR NO KEY UPDATE SKIP LOCKED
), renewed AS (
    UPDATE dbosflow.workflow w SET epoch = w.epoch + 1 FROM mine WHERE w.id = mine.id RETURNING w.epoch
)
SELECT (SELECT epoch FROM renewed) AS epoch,
       EXISTS (SELECT FROM dbosflow.workflow w
               WHERE w.id = :workflow_id AND w.worker_id IS NOT DISTINCT FROM :worker_id::uuid AND w.epoch = :epoch
      ) AS owned;

-- name: release (runs that a live worker gives back, between two of its batches)
WITH mine AS MATERIALIZED (
    SELECT w.id
    FROM unnest(:ids::text[], :epochs::integer[]) AS r (id, epoch)
    JOIN dbosflow.workflow w ON w.id = r.id
    WHERE w.worker_id IS NOT DISTINCT FROM :worker_id::uuid AND w.epoch = r.epoch
    ORDER BY w.id
    FOR NO KEY UPDATE OF w SKIP LOCKED
)
UPDATE dbosflow.workflow w
SET worker_id = NULL, epoch = w.epoch + 1, status = 'queued', recoveries = 0
FROM mine
WHERE w.id = mine.id
RETURNING w.id, w.queue;

-- name: put_off (a run that a live worker cannot read, and that another one perhaps can)
-- It waits for a tenth of its age, so that a worker that has the key comes soon, and few look at what none has the key of.
-- Between two batches, and with the fence and the lock of `release`. A cancellation is not lost: it wakes what waits, and one
-- that came behind the run's last look finds that the workflow does not wait at all; one that the run knew of needs the key,
-- too. The error says why, until the workflow is due again.
WITH mine AS MATERIALIZED (
    SELECT w.id
    FROM dbosflow.workflow w
    WHERE w.id = :workflow_id AND w.worker_id IS NOT DISTINCT FROM :worker_id::uuid AND w.epoch = :epoch
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE dbosflow.workflow w
SET worker_id = NULL, epoch = w.epoch + 1, status = 'waiting', error = :error::json,
    wake_at = CASE WHEN w.cancel_requested_at IS NOT NULL AND NOT :was_requested::boolean THEN now()
                   ELSE now() + least(greatest((now() - w.created_at) / 10, interval '1 second'), interval '5 minutes') END
FROM mine
WHERE w.id = mine.id
RETURNING w.id;

-- name: requeue (the runs of dead workers; runs after the death, so that it sees all that they claimed)
-- dbosflow/_runtime/execution/quarantine.py says which runs a death counts against. Level-triggered: it handles the runs of
-- all dead workers, whichever process marked them. Index: workflow_owned, a probe for each: the planner knows nothing of
-- BETWEEN a value and itself, and of `=` what it saw when all workflows had one owner, which is to read the whole table.
WITH orphan AS MATERIALIZED (
    SELECT w.*
    FROM dbosflow.worker k
    CROSS JOIN LATERAL (
        SELECT w.id, w.worker_id, w.recoveries, w.recovered_seq, w.epoch
        FROM dbosflow.workflow w
        WHERE w.worker_id BETWEEN k.id AND k.id
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS w
    WHERE k.state = 'dead'
), found AS MATERIALIZED (
    SELECT o.*,
           (SELECT k.ended_because FROM dbosflow.worker k WHERE k.id = o.worker_id) AS ended_because,
           (SELECT k.suspect FROM dbosflow.worker k WHERE k.id = o.worker_id) AS suspect,
           (SELECT max(s.seq) FROM dbosflow.step s WHERE s.workflow_id = o.id) AS seq
    FROM orphan o
), counted AS MATERIALIZED (
    SELECT f.id, f.seq, CASE
        WHEN f.ended_because = 'released' THEN 0
        WHEN f.suspect <> f.id AND f.recoveries >= 3 THEN f.recoveries
        WHEN f.recovered_seq IS DISTINCT FROM f.seq THEN CASE WHEN f.suspect <> f.id THEN f.recoveries ELSE 1 END
        WHEN (
            SELECT true FROM dbosflow.stream_block b  -- not EXISTS, which would hash the whole table
            WHERE b.workflow_id = f.id AND b.epoch = f.epoch AND b.kind = 'values' AND b.attempt IS NULL
            LIMIT 1) THEN CASE WHEN f.suspect <> f.id THEN f.recoveries ELSE 1 END
        ELSE f.recoveries + 1 END AS recoveries
    FROM found f
)
UPDATE dbosflow.workflow w
SET worker_id = NULL, epoch = w.epoch + 1, recoveries = c.recoveries, recovered_seq = c.seq,
    status = CASE WHEN c.recoveries >= coalesce(w.max_recoveries, :max_recoveries) THEN 'blocked' ELSE 'queued' END,
    error = CASE WHEN c.recoveries >= coalesce(w.max_recoveries, :max_recoveries) THEN json_build_object(
        'type', 'WorkflowBlockedError', 'module', 'dbosflow.errors', 'args', NULL, 'message',
        'its workers died ' || c.recoveries || ' times in a row without a new record') END
FROM unnest(ARRAY(SELECT id FROM counted), ARRAY(SELECT recoveries FROM counted), ARRAY(SELECT seq FROM counted))
     AS c (id, recoveries, seq)
WHERE w.id = c.id
RETURNING w.id, w.queue, w.status;

-- name: outcomes (the statuses and outcomes for waiters)
SELECT id, status, output::text AS output, error::text AS error FROM dbosflow.workflow WHERE id = ANY(:ids::text[]);

-- name: adopt (runs that a worker owns without knowing: the answer of a claim or start was lost, or a failover lost an end)
-- In a new epoch: it may have run in this one already, and attempts are named by epoch. Index: workflow_owned.
WITH forgotten AS MATERIALIZED (
    SELECT w.id FROM dbosflow.workflow w
    WHERE w.worker_id = :worker_id AND NOT w.id = ANY(:known)
      AND (:queues::text[] IS NULL OR split_part(w.queue, chr(31), 1) = ANY(:queues)) AND (:workflow_id::text IS NULL OR w.id = :workflow_id)
    FOR NO KEY UPDATE SKIP LOCKED -- it waits for nothing, so it needs no order, for which the whole table could be read by id
)
UPDATE dbosflow.workflow w SET epoch = w.epoch + 1
FROM unnest(ARRAY(SELECT id FROM forgotten)) AS taken (id)
WHERE w.id = taken.id
RETURNING w.id, w.name, w.queue, w.epoch, w.input::text AS input, to_json(w.input_streams)::text AS input_streams, w.recoveries,
          CASE WHEN w.cancel_requested_at IS NOT NULL THEN json_build_array(w.cancel_reason, w.timed_out)::text END AS request,
          w.parent_id IS NOT NULL AS is_child, extract(epoch FROM w.deadline_at - now())::double precision AS remaining;

-- name: cancel (workflows by their ids, or the children of one, unless its own cancellation excluded them)
-- This is a request, which the owner or the next owner carries out, because only the fence may write for a run. A workflow
-- that never ran has no owner, so it ends here, with its inputs: if a writer to one of them is faster, the primary key
-- reports that, and the statement is repeated. A blocked or waiting workflow is queued again to get an owner. With `children` the
-- request includes all descendants below, down to the first generation that has ended; a child whose start has not
-- arrived yet is cancelled by its parent. With `statuses`, one of the given ids that has another status by now is left alone.
-- Of the children of one, those whose own deadline has passed are left to the alarm: they fail for it, as their parent does.
WITH RECURSIVE tree AS (
    SELECT asked.id
    FROM (
        SELECT unnest(:ids::text[]) AS id
        UNION ALL
        SELECT c.id
        FROM dbosflow.workflow c
        WHERE c.parent_id = :parent_id::text
          AND (SELECT p.cancel_children IS NOT FALSE FROM dbosflow.workflow p WHERE p.id = :parent_id::text)
    ) AS named
    CROSS JOIN LATERAL (
        SELECT w.id
        FROM dbosflow.workflow w
        WHERE w.id = named.id AND w.status NOT IN ('succeeded', 'failed', 'cancelled')
        OFFSET 0
    ) AS asked
    UNION
    SELECT below.id
    FROM tree
    CROSS JOIN LATERAL (
        SELECT c.id
        FROM dbosflow.workflow c
        WHERE c.parent_id = tree.id AND c.status NOT IN ('succeeded', 'failed', 'cancelled')
        OFFSET 0 -- a probe of workflow_parent for each, and never a join with the whole table
    ) AS below
    WHERE :children::boolean
), asked AS MATERIALIZED (
    SELECT w.id, w.input_streams, w.epoch = 0 AS never_ran
    FROM dbosflow.workflow w
    WHERE w.id = ANY(ARRAY(SELECT id FROM tree)) AND w.status NOT IN ('succeeded', 'failed', 'cancelled')
      AND (:statuses::text[] IS NULL OR w.status = ANY(:statuses::text[]) OR NOT w.id = ANY(:ids::text[]))
      AND (:parent_id::text IS NULL OR w.deadline_at IS NULL OR w.deadline_at > now() OR w.cancel_requested_at IS NOT NULL)
    ORDER BY w.id
    FOR UPDATE
), error AS MATERIALIZED (
    SELECT json_build_object('type', 'WorkflowCancelledError', 'module', 'dbosflow.errors', 'message', :reason::text,
                             'args', NULL) AS error
    WHERE :reason::text IS NOT NULL
), closed AS (
    INSERT INTO dbosflow.stream_block
        (workflow_id, key, "offset", count, kind, values, bytes, producer, producer_seq, epoch)
    SELECT a.id, i.key, coalesce(tail.next, 0), 1, 'cancelled', (SELECT error FROM error),
           coalesce((SELECT octet_length(error::text) FROM error), 0), '', 0, 0
    FROM asked a
    CROSS JOIN unnest(a.input_streams) AS i (key)
    LEFT JOIN LATERAL (
        SELECT b."offset" + b.count AS next, b.kind
        FROM dbosflow.stream_block b
        WHERE b.workflow_id = a.id AND b.key = i.key
        ORDER BY b."offset" DESC
        LIMIT 1
    ) AS tail ON true
    WHERE a.never_ran AND (tail.kind IS NULL OR tail.kind NOT IN ('complete', 'error', 'cancelled'))
    ORDER BY a.id, i.key
), unawaited AS (
    DELETE FROM dbosflow.waiter WHERE workflow_id = ANY(ARRAY(SELECT id FROM asked))
)
UPDATE dbosflow.workflow w
SET cancel_requested_at = coalesce(w.cancel_requested_at, now()),
    cancel_children = coalesce(w.cancel_children, false) OR :children::boolean,
    cancel_reason = CASE WHEN w.cancel_requested_at IS NULL THEN :reason::text ELSE w.cancel_reason END,
    error = CASE WHEN a.never_ran THEN (SELECT error FROM error) ELSE w.error END,
    status = CASE WHEN a.never_ran THEN 'cancelled' WHEN w.status IN ('blocked', 'waiting') THEN 'queued'
                  ELSE w.status END,
    ended_at = CASE WHEN a.never_ran THEN now() END,
    recoveries = 0
FROM asked a
WHERE w.id = a.id
RETURNING w.id, w.status, w.queue;

-- name: resume (blocked workflows return to their queues, for any worker that knows them; others are left unchanged)
-- A blocked workflow has no owner, so any role that may do this may write. The deaths that counted against it are cleared.
WITH found AS MATERIALIZED (
    SELECT id, status FROM dbosflow.workflow WHERE id = ANY(:ids::text[]) ORDER BY id FOR UPDATE
), resumed AS (
    UPDATE dbosflow.workflow w
    SET status = 'queued', recoveries = 0, error = NULL
    FROM found f
    WHERE w.id = f.id AND f.status = 'blocked'
    RETURNING w.id, w.status, w.queue
)
SELECT f.id, coalesce(r.status, f.status) AS status, r.queue FROM found f LEFT JOIN resumed r ON r.id = f.id;

-- name: cancel_requests (of the runs of a worker; index: workflow_owned)
SELECT id, cancel_reason AS reason, timed_out IS TRUE AS timed_out
FROM dbosflow.workflow WHERE worker_id = :worker_id AND cancel_requested_at IS NOT NULL;

-- name: expire (workflows whose deadline has passed; the same as `cancel`, with the deadline for a reason)
-- By the clock of the database. Index: workflow_deadline. A row that another statement holds is skipped: the next look
-- finds it. One whose cancellation was requested before ends as cancelled. A workflow that never ran ends here, as failed.
WITH due AS MATERIALIZED (
    SELECT w.id, w.input_streams, w.epoch = 0 AS never_ran,
           format('workflow %L has not ended by its deadline', w.id) AS message
    FROM dbosflow.workflow w
    WHERE w.deadline_at <= now() AND w.status NOT IN ('succeeded', 'failed', 'cancelled')
      AND w.cancel_requested_at IS NULL
    ORDER BY w.deadline_at
    LIMIT :limit
    FOR UPDATE SKIP LOCKED
), ended AS MATERIALIZED (
    SELECT d.id, d.input_streams, json_build_object(
        'type', 'WorkflowTimeoutError', 'module', 'dbosflow.errors', 'message', d.message,
        'args', json_build_array(d.id, d.message),
        'attributes', json_build_object('workflow_id', d.id, 'message', d.message)) AS error
    FROM due d
    WHERE d.never_ran
), closed AS (
    INSERT INTO dbosflow.stream_block
        (workflow_id, key, "offset", count, kind, values, bytes, producer, producer_seq, epoch)
    SELECT e.id, i.key, coalesce(tail.next, 0), 1, 'error', e.error, octet_length(e.error::text), '', 0, 0
    FROM ended e
    CROSS JOIN unnest(e.input_streams) AS i (key)
    LEFT JOIN LATERAL (
        SELECT b."offset" + b.count AS next, b.kind
        FROM dbosflow.stream_block b
        WHERE b.workflow_id = e.id AND b.key = i.key
        ORDER BY b."offset" DESC
        LIMIT 1
    ) AS tail ON true
    WHERE tail.kind IS NULL OR tail.kind NOT IN ('complete', 'error', 'cancelled')
    ORDER BY e.id, i.key
), unawaited AS (
    DELETE FROM dbosflow.waiter WHERE workflow_id = ANY(ARRAY(SELECT id FROM due))
)
UPDATE dbosflow.workflow w
SET cancel_requested_at = now(), timed_out = true, cancel_children = true, recoveries = 0,
    status = CASE WHEN d.never_ran THEN 'failed' WHEN w.status = 'running' THEN w.status ELSE 'queued' END,
    error = CASE WHEN d.never_ran THEN (SELECT e.error FROM ended e WHERE e.id = d.id) END,
    ended_at = CASE WHEN d.never_ran THEN now() END
FROM due d
WHERE w.id = d.id
RETURNING w.id, w.status, w.queue;

-- name: next_due (seconds until the earliest deadline that nobody has acted on; 0 or less if it has passed)
-- Index: workflow_deadline, whose first entry is read. Up to Postgres 16 `min` may read all of them.
SELECT extract(epoch FROM (
    SELECT w.deadline_at
    FROM dbosflow.workflow w
    WHERE w.deadline_at IS NOT NULL AND w.status NOT IN ('succeeded', 'failed', 'cancelled')
      AND w.cancel_requested_at IS NULL
    ORDER BY w.deadline_at
    LIMIT 1) - now())::double precision AS seconds;

-- name: flush_seen (what is visible of these workflows is durable when this returns)
-- A session that was ended while it waited for a synchronous standby, or a server that crashed meanwhile, leaves commits that
-- every session sees and the standby does not have. The lock is written to the log, so this statement has a commit of its own,
-- which waits behind them. Without such a standby nothing is visible before it is durable, and nothing is locked.
SELECT w.id FROM dbosflow.workflow w
WHERE w.id = ANY(:ids::text[]) AND current_setting('synchronous_standby_names') <> ''
ORDER BY w.id
FOR KEY SHARE;
