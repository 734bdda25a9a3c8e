-- Deduplicated starts. A key of a queue is held by a workflow that has not ended: the row of `dedup` names the last workflow that
-- took the key, and the status of that one says whether it holds it still. So no end frees anything, and none costs more.
-- Two statements of one transaction start: `reserve` locks the keys, in their order, and `decide`, whose snapshot is newer than
-- these locks, acts. Other rows are taken SKIP LOCKED, or are new: so two starters wait for each other in no circle, and a start
-- that meets a locked row, or an id that was just taken, is left for another try, whose `look` says what there is.

-- name: look (what there is under these ids and keys; reads only. Indexes: the primary keys)
SELECT s.id, CASE WHEN own.id IS NOT NULL THEN 'known'
                  WHEN d.start_id = s.id THEN 'applied'
                  WHEN holder.id IS NOT NULL THEN 'held'
                  ELSE 'free' END AS found,
       coalesce(own.id, holder.id, d.workflow_id) AS workflow_id, holder.name, holder.epoch = 0 AS waits
FROM unnest(:ids::text[], :queues::text[], :keys::text[]) AS s (id, queue, key)
LEFT JOIN LATERAL (SELECT w.id FROM dbosflow.workflow w WHERE w.id = s.id OFFSET 0) AS own ON true
LEFT JOIN LATERAL (
    SELECT o.workflow_id, o.start_id FROM dbosflow.dedup o WHERE o.queue = s.queue AND o.key = s.key OFFSET 0
) AS d ON true
LEFT JOIN LATERAL (
    SELECT w.id, w.name, w.epoch FROM dbosflow.workflow w
    WHERE w.id = d.workflow_id AND w.status NOT IN ('succeeded', 'failed', 'cancelled') OFFSET 0
) AS holder ON true;

-- name: reserve (locks the keys of starts whose ids are new, in the order of the keys; a missing row is made, and names nobody)
INSERT INTO dbosflow.dedup (queue, key, workflow_id, start_id)
SELECT s.queue, s.key, '', ''
FROM unnest(:ids::text[], :queues::text[], :keys::text[]) AS s (id, queue, key)
WHERE NOT EXISTS (SELECT FROM dbosflow.workflow w WHERE w.id = s.id)
ORDER BY s.queue, s.key
ON CONFLICT (queue, key) DO UPDATE SET start_id = dbosflow.dedup.start_id
RETURNING queue, key;

-- name: decide (of starts whose keys this transaction has locked: each is another key)
-- Where nobody holds the key, a workflow is started. One that waits and never ran gets the new start's arguments, options and
-- time; a claim is faster or sees all of that. One that has begun goes on beside the new one, or, with `cancel_running`, is asked
-- to end: then the new one waits for that, as a suspended workflow does (see waiter.sql).
-- `longest` bounds how long a workflow is put off, from the time when it was made.
WITH start AS MATERIALIZED (
    SELECT s.*, coalesce(now() + s.delay * interval '1 second', to_timestamp(s.run_at)) AS due_at
    FROM unnest(:ids::text[], :queues::text[], :keys::text[], :policies::text[], :longest::double precision[],
                :names::text[], :stored_queues::text[], :priorities::integer[], :inputs::text[], :input_streams::text[],
                :option_timeout::double precision[], :option_deadline::double precision[],
                :option_max_recoveries::integer[], :option_attributes::text[], :option_delay::double precision[],
                :option_run_at::double precision[], :option_units::integer[])
         AS s (id, queue, key, policy, longest, name, stored_queue, priority, input, input_streams, timeout, deadline,
               max_recoveries, attributes, delay, run_at, units)
), act AS MATERIALIZED (
    SELECT s.*, holder.id AS holder,
           CASE WHEN holder.id IS NULL THEN 'start'
                WHEN holder.name <> s.name OR s.policy NOT IN ('replace', 'cancel_running') THEN 'none'
                WHEN holder.epoch = 0 THEN 'replace'
                WHEN s.policy = 'replace' THEN 'start'
                ELSE 'succeed' END AS act
    FROM start s
    CROSS JOIN LATERAL (
        SELECT o.workflow_id, o.start_id FROM dbosflow.dedup o WHERE o.queue = s.queue AND o.key = s.key OFFSET 0
    ) AS d
    LEFT JOIN LATERAL (
        SELECT w.id, w.name, w.epoch FROM dbosflow.workflow w
        WHERE w.id = d.workflow_id AND w.status NOT IN ('succeeded', 'failed', 'cancelled') OFFSET 0
    ) AS holder ON true
    WHERE d.start_id <> s.id
), waiting AS MATERIALIZED (
    SELECT w.id, w.created_at
    FROM dbosflow.workflow w
    WHERE w.id = ANY(ARRAY(SELECT holder FROM act WHERE act = 'replace'))
      AND w.epoch = 0 AND w.status IN ('queued', 'scheduled', 'waiting')
    ORDER BY w.id
    FOR NO KEY UPDATE SKIP LOCKED
), begun AS MATERIALIZED (
    SELECT w.id
    FROM dbosflow.workflow w
    WHERE w.id = ANY(ARRAY(SELECT holder FROM act WHERE act = 'succeed'))
      AND w.status NOT IN ('succeeded', 'failed', 'cancelled')
    ORDER BY w.id
    FOR NO KEY UPDATE SKIP LOCKED
), replaced AS (
    UPDATE dbosflow.workflow w
    SET input = n.input::json, queue = n.stored_queue, priority = n.priority, max_recoveries = n.max_recoveries, units = n.units,
        input_streams = CASE WHEN n.input_streams IS NOT NULL
                             THEN ARRAY(SELECT json_array_elements_text(n.input_streams::json)) END,
        deadline_at = least(greatest(n.due_at, now()) + n.timeout * interval '1 second', to_timestamp(n.deadline)),
        wake_at = CASE WHEN w.status <> 'waiting' AND n.due_at > now() THEN n.due_at END,
        status = CASE WHEN w.status = 'waiting' THEN w.status WHEN n.due_at > now() THEN 'scheduled' ELSE 'queued' END
    FROM (
        SELECT a.holder, a.input, a.stored_queue, a.priority, a.max_recoveries, a.units, a.input_streams, a.timeout, a.deadline,
               CASE WHEN a.due_at IS NOT NULL
                    THEN least(a.due_at, x.created_at + a.longest * interval '1 second') END AS due_at
        FROM waiting x
        JOIN act a ON a.holder = x.id
    ) AS n
    WHERE w.id = n.holder
    RETURNING w.id, w.queue, w.status
), asked AS (
    UPDATE dbosflow.workflow w
    SET cancel_requested_at = coalesce(w.cancel_requested_at, now()), cancel_children = true, recoveries = 0,
        cancel_reason = CASE WHEN w.cancel_requested_at IS NULL THEN :reason::text ELSE w.cancel_reason END,
        status = CASE WHEN w.status IN ('blocked', 'waiting') THEN 'queued' ELSE w.status END
    FROM begun
    WHERE w.id = begun.id
    RETURNING w.id, w.queue
), unawaited AS (
    DELETE FROM dbosflow.waiter WHERE workflow_id = ANY(ARRAY(SELECT id FROM begun))
), started AS (
    INSERT INTO dbosflow.workflow
        (id, name, status, queue, priority, input, input_streams, deadline_at, max_recoveries, wake_at, units)
    SELECT a.id, a.name, CASE WHEN a.act = 'succeed' THEN 'waiting' WHEN a.due_at > now() THEN 'scheduled' ELSE 'queued' END,
           a.stored_queue, a.priority, a.input::json,
           CASE WHEN a.input_streams IS NOT NULL THEN ARRAY(SELECT json_array_elements_text(a.input_streams::json)) END,
           least(greatest(a.due_at, now()) + a.timeout * interval '1 second', to_timestamp(a.deadline)),
           a.max_recoveries, CASE WHEN a.act = 'start' AND a.due_at > now() THEN a.due_at END, a.units
    FROM act a
    WHERE a.act = 'start' OR a.act = 'succeed' AND a.holder = ANY(ARRAY(SELECT id FROM begun))
    ORDER BY a.id
    ON CONFLICT (id) DO NOTHING
    RETURNING id, queue, status
), awaited AS (
    INSERT INTO dbosflow.waiter (workflow_id, topic, target_id, "offset", committed)
    SELECT a.id, 'w' || a.holder, a.holder, 0, false
    FROM act a
    JOIN started ON started.id = a.id
    WHERE a.act = 'succeed'
), done AS MATERIALIZED (
    SELECT a.id, a.queue, a.key, a.attributes, w.id AS workflow_id, w.queue AS stored_queue, w.status, a.act,
           CASE WHEN a.act = 'succeed' THEN a.holder END AS predecessor
    FROM act a
    JOIN (SELECT * FROM started UNION ALL SELECT * FROM replaced) AS w
         ON w.id = CASE WHEN a.act = 'replace' THEN a.holder ELSE a.id END
), held AS (
    INSERT INTO dbosflow.dedup (queue, key, workflow_id, start_id) -- an UPDATE, which no plan can join
    SELECT n.queue, n.key, n.workflow_id, n.id FROM done n
    ON CONFLICT (queue, key) DO UPDATE SET workflow_id = excluded.workflow_id, start_id = excluded.start_id
), unattributed AS (
    DELETE FROM dbosflow.attribute a
    USING done n
    WHERE n.act = 'replace' AND a.workflow_id = n.workflow_id
      AND a.name <> ALL(ARRAY(SELECT json_object_keys(n.attributes::json)))
), attributed AS (
    INSERT INTO dbosflow.attribute (workflow_id, name, value)
    SELECT n.workflow_id, a.key, a.value
    FROM done n
    CROSS JOIN LATERAL json_each_text(n.attributes::json) AS a (key, value)
    ORDER BY n.workflow_id, a.key
    ON CONFLICT (workflow_id, name) DO UPDATE SET value = excluded.value
)
SELECT n.id, n.workflow_id, n.stored_queue, n.status, n.act, n.predecessor,
       (SELECT queue FROM asked WHERE asked.id = n.predecessor) AS predecessor_queue
FROM done n;
