-- name: claim (the first of a queue without limits; from one with limits nothing is claimed here: see queue.sql)
-- Locks: the worker's row FOR KEY SHARE (a dead worker claims nothing), and the claimed rows. Indexes: workflow_queued and
-- the primary key. The claimed ids are an array, for which the planner expects a few rows. For `alone` itself, with an
-- unknown limit, it would expect a tenth of the queue, and read the whole table. A suspect (see
-- dbosflow/_runtime/execution/quarantine.py) is claimed alone, by a worker that has none, and only if `suspects` is true.
-- The commit is flushed like every other one: if a crash of the server lost a claim, its epoch would be given out twice,
-- and no row could show which of the two owners has written it. What is claimed after its deadline is asked to end in the
-- same statement, so that its new owner begins nothing of it.
-- Names that the worker does not know cost a probe each, and all of them no more probes than it knows names: `leap` goes from
-- the first name that waits to the next one that the worker knows, and so on. If one is found, it is read in its order. Of
-- several, `merged` has what comes first, piece by piece: a piece has the next rows of each, up to where the first of them
-- was not read any further. A row is locked when it is its turn, and what others hold is passed over. So that makes no claim
-- smaller, and nothing is locked that is not taken.
WITH RECURSIVE lease AS MATERIALIZED (
    SELECT id FROM dbosflow.worker
    WHERE id = :worker_id::uuid AND state = 'live' AND suspect IS NULL
      AND NOT EXISTS (SELECT FROM dbosflow.queue q WHERE q.name = :limits::text)
    FOR KEY SHARE
), leap AS (
    SELECT ARRAY(SELECT n FROM unnest(:names::text[]) AS n ORDER BY n) AS names, '' AS next, NULL::text AS name,
           NULL::integer AS priority, NULL::timestamptz AS created_at, NULL::text AS id
    FROM lease
    UNION ALL
    SELECT l.names, l.names[width_bucket(f.name, l.names) + 1], f.*
    FROM leap l
    CROSS JOIN LATERAL (
        SELECT w.name, w.priority, w.created_at, w.id
        FROM dbosflow.workflow w
        WHERE w.status = 'queued' AND w.queue = :queue::text AND w.name >= l.next
        ORDER BY w.queue, w.name, w.priority, w.created_at, w.id
        LIMIT 1
    ) AS f
), known AS MATERIALIZED (
    SELECT l.name, l.priority, l.created_at, l.id, count(*) OVER () AS names FROM leap l WHERE l.name = ANY(:names::text[])
), suspect AS MATERIALIZED (
    SELECT f.id
    FROM (
        SELECT k.name
        FROM known k
        CROSS JOIN LATERAL ( -- not `name = ANY`, for which older servers may read those of all names
            SELECT w.recoveries, w.created_at, w.id
            FROM dbosflow.workflow w
            WHERE w.status = 'queued' AND w.recoveries >= 3 AND w.queue = :queue::text AND w.name = k.name
            ORDER BY w.queue, w.name, w.recoveries, w.created_at, w.id
            LIMIT CASE WHEN :suspects::boolean THEN 1 ELSE 0 END
        ) AS f
        ORDER BY f.recoveries, f.created_at, f.id
    ) AS k
    CROSS JOIN LATERAL (
        SELECT w.id
        FROM dbosflow.workflow w
        WHERE w.status = 'queued' AND w.recoveries >= 3 AND w.queue = :queue::text AND w.name = k.name
        ORDER BY w.queue, w.name, w.recoveries, w.created_at, w.id
        LIMIT 1
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS f
    LIMIT least(:limit::integer, 1)
), accused AS (
    UPDATE dbosflow.worker k SET suspect = s.id
    FROM suspect s
    WHERE k.id = :worker_id::uuid
), alone AS MATERIALIZED (
    SELECT f.id
    FROM known k
    CROSS JOIN LATERAL (
        SELECT w.id
        FROM dbosflow.workflow w
        WHERE w.status = 'queued' AND w.queue = :queue::text AND w.name = k.name
          AND (w.priority, w.created_at, w.id) >= (k.priority, k.created_at, k.id) AND w.recoveries < 3
        ORDER BY w.queue, w.name, w.priority, w.created_at, w.id
        LIMIT :limit::integer
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS f
    WHERE k.names = 1 AND NOT EXISTS (SELECT FROM suspect)
), piece AS (
    SELECT NULL::integer AS priority, NULL::timestamptz AS created_at, NULL::text AS last, NULL::text[] AS ids
    FROM lease
    WHERE (SELECT count(*) FROM known) > 1 AND NOT EXISTS (SELECT FROM suspect)
    UNION ALL
    SELECT next.priorities[cardinality(next.ids)], next.times[cardinality(next.ids)], next.ids[cardinality(next.ids)], next.ids
    FROM piece p
    CROSS JOIN LATERAL (
        SELECT array_agg(o.priority ORDER BY o.priority, o.created_at, o.id) AS priorities,
               array_agg(o.created_at ORDER BY o.priority, o.created_at, o.id) AS times,
               array_agg(o.id ORDER BY o.priority, o.created_at, o.id) AS ids
        FROM (
            SELECT f.*, count(*) FILTER (WHERE f.n = f.size) OVER (
                       ORDER BY f.priority, f.created_at, f.id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS ends
            FROM (
                SELECT f.*, k.size, row_number() OVER (PARTITION BY k.name ORDER BY f.priority, f.created_at, f.id) AS n
                FROM (SELECT k.*, least(:limit::integer, 16 + 4 * :limit::integer / k.names) AS size FROM known k) AS k
                CROSS JOIN LATERAL (
                    SELECT w.priority, w.created_at, w.id
                    FROM dbosflow.workflow w
                    WHERE w.status = 'queued' AND w.queue = :queue::text AND w.name = k.name
                      AND (w.priority, w.created_at, w.id) >= (coalesce(p.priority, k.priority),
                          coalesce(p.created_at, k.created_at), coalesce(p.last, k.id))
                      AND w.id IS DISTINCT FROM p.last AND w.recoveries < 3
                    ORDER BY w.queue, w.name, w.priority, w.created_at, w.id
                    LIMIT k.size
                ) AS f
            ) AS f
        ) AS o
        WHERE o.ends = 0
    ) AS next
    WHERE next.ids IS NOT NULL
), merged AS MATERIALIZED (
    SELECT f.id
    FROM piece p
    CROSS JOIN LATERAL unnest(p.ids) AS c (id)
    CROSS JOIN LATERAL (
        SELECT w.id
        FROM dbosflow.workflow w
        WHERE w.id = c.id AND w.status IS NOT DISTINCT FROM 'queued' AND w.queue IS NOT DISTINCT FROM :queue::text
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS f
    LIMIT :limit::integer
)
UPDATE dbosflow.workflow w
SET status = 'running', worker_id = lease.id, epoch = w.epoch + 1, started_at = coalesce(w.started_at, now()),
    timed_out = CASE WHEN w.deadline_at <= now() THEN w.cancel_requested_at IS NULL OR w.timed_out ELSE w.timed_out END,
    cancel_requested_at = CASE WHEN w.deadline_at <= now() THEN coalesce(w.cancel_requested_at, now())
                               ELSE w.cancel_requested_at END
FROM unnest(ARRAY(SELECT id FROM alone) || ARRAY(SELECT id FROM merged) || ARRAY(SELECT id FROM suspect)) AS taken (id), lease
WHERE w.id = taken.id
RETURNING w.id, w.name, w.queue, w.epoch, w.input::text AS input, to_json(w.input_streams)::text AS input_streams,
          w.recoveries, CASE WHEN w.cancel_requested_at IS NOT NULL THEN json_build_array(w.cancel_reason, w.timed_out)::text END AS request,
          w.parent_id IS NOT NULL AS is_child,
          extract(epoch FROM w.deadline_at - now())::double precision AS remaining;
