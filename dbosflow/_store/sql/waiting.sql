-- What waits in queues: whether there is any of it, and of which names. Nothing here locks or changes a row.

-- name: work (how many workflows of these names wait in a queue and its partitions, up to a limit; indexes: workflow_queued,
-- workflow_partitioned)
SELECT count(*) AS waiting
FROM (
    (SELECT FROM dbosflow.workflow w
     WHERE w.status = 'queued' AND w.queue = :queue::text AND w.name = ANY(:names::text[])
     LIMIT :limit::integer)
    UNION ALL
    (SELECT FROM dbosflow.workflow w
     WHERE w.status IS NOT DISTINCT FROM 'queued' AND strpos(w.queue, chr(31)) > 0
       AND split_part(w.queue, chr(31), 1) COLLATE "C" = :queue::text AND w.name = ANY(:names::text[])
     LIMIT :limit::integer)
) AS waiting;

-- name: left (whether anything is left that a worker could run that serves these queues, and knows these names)
-- What waits, unless its queue or the bucket of that is paused; what is due, and not queued yet; what the worker has claimed,
-- and does not run yet; and starts in the outbox, but for those that the database refuses. Indexes: workflow_queued,
-- workflow_partitioned, workflow_due, workflow_owned.
WITH served AS MATERIALIZED (
    SELECT s.queue
    FROM unnest(:queues::text[], :spoken::text[]) AS s (queue, name)
    WHERE NOT EXISTS (SELECT FROM dbosflow.queue q
                      LEFT JOIN dbosflow.bucket b ON b.name = q.bucket
                      WHERE q.name = s.name AND (q.paused AND coalesce(q.pause_ends_at > now(), true)
                                                 OR b.paused AND coalesce(b.pause_ends_at > now(), true)))
)
SELECT EXISTS (
           SELECT FROM served s
           WHERE EXISTS (SELECT FROM dbosflow.workflow w
                         WHERE w.status = 'queued' AND w.queue = s.queue AND w.name = ANY(:names::text[]))
              OR EXISTS (SELECT FROM dbosflow.workflow w
                         WHERE w.status IS NOT DISTINCT FROM 'queued' AND strpos(w.queue, chr(31)) > 0
                           AND split_part(w.queue, chr(31), 1) COLLATE "C" = s.queue AND w.name = ANY(:names::text[])))
    OR EXISTS (
           SELECT FROM dbosflow.workflow w
           WHERE w.status IN ('waiting', 'scheduled') AND w.wake_at <= now()
             AND split_part(w.queue, chr(31), 1) IN (SELECT queue FROM served) AND w.name = ANY(:names::text[]))
    OR EXISTS (SELECT FROM dbosflow.workflow w WHERE w.worker_id BETWEEN :worker_id::uuid AND :worker_id::uuid)
    OR EXISTS (
           SELECT FROM dbosflow.outbox o
           WHERE split_part(o.queue, chr(31), 1) IN (SELECT queue FROM served) AND o.name = ANY(:names::text[])
             AND coalesce(o.wake_at <= now(), true) AND o.workflow_id <> ALL(:refused::text[]))
    OR EXISTS (
           SELECT FROM dbosflow.outbox_start o
           WHERE split_part(o.request ->> 'queue', chr(31), 1) IN (SELECT queue FROM served) AND o.request ->> 'name' = ANY(:names::text[])
             AND NOT EXISTS (SELECT FROM dbosflow.outbox_start r -- which holds up the others of its key
                             WHERE r.queue = o.queue AND r.key = o.key AND r.id::text = ANY(:refused::text[]))) AS is_left;

-- name: unknown (names of waiting workflows in a queue, except the given ones; runs rarely, when little else waits)
-- Index: workflow_queued, a probe for each name; and workflow_partitioned.
WITH RECURSIVE name AS (
    (SELECT w.name FROM dbosflow.workflow w WHERE w.status = 'queued' AND w.queue = :queue ORDER BY w.queue, w.name LIMIT 1)
    UNION ALL
    SELECT (SELECT w.name FROM dbosflow.workflow w
            WHERE w.status = 'queued' AND w.queue = :queue AND w.name > n.name ORDER BY w.queue, w.name LIMIT 1)
    FROM name n WHERE n.name IS NOT NULL
)
SELECT DISTINCT waiting.name
FROM (
    (SELECT n.name FROM name n WHERE NOT n.name = ANY(:names) LIMIT 1000)
    UNION ALL
    (SELECT w.name FROM dbosflow.workflow w
     WHERE w.status IS NOT DISTINCT FROM 'queued' AND strpos(w.queue, chr(31)) > 0
       AND split_part(w.queue, chr(31), 1) COLLATE "C" = :queue AND NOT w.name = ANY(:names)
     LIMIT 1000)
) AS waiting;
