-- What workflows have really used of the rates of their queues. See queue.sql for how a rate is kept.

-- name: use (makes calls count, each of another workflow or key; returns the queues for which there may be units again)
-- A row for each call that has counted, so that one which is repeated does not count again, written with the change of the
-- rate. The row without a key says that the units of the start were given back. An ended workflow uses nothing, nor does its
-- former owner's body (`epoch`; null: an attempt of a step, which has used something whoever owns the workflow now).
-- Locks: the queue's row, if the rate is its own, then the bucket's; those of several in order. Claims skip what is locked.
WITH call AS MATERIALIZED (
    SELECT c.id, c.key, c.units, q.name AS queue, coalesce(nullif(w.charged, ''), CASE WHEN w.charged IS NULL THEN q.bucket END) AS bucket,
           CASE WHEN w.charged IS NOT NULL THEN coalesce(w.units, 1) END AS taken
    FROM unnest(:ids::text[], :keys::text[], :units::integer[], :queues::text[], :epochs::integer[])
         AS c (id, key, units, queue, epoch)
    CROSS JOIN LATERAL (
        SELECT w.units, w.charged FROM dbosflow.workflow w
        WHERE w.id = c.id AND w.ended_at IS NULL AND (c.epoch IS NULL OR w.epoch = c.epoch)
        OFFSET 0
    ) AS w
    LEFT JOIN dbosflow.queue q ON q.name = c.queue
), used AS (
    INSERT INTO dbosflow.used_units (workflow_id, key, units)
    SELECT c.id, c.key, c.units FROM call c
    WHERE CASE WHEN c.bucket IS NULL THEN EXISTS (
                   SELECT FROM dbosflow.queue q WHERE q.name = c.queue AND q.rate_count IS NOT NULL)
               ELSE EXISTS (SELECT FROM dbosflow.bucket b WHERE b.name = c.bucket) END
    ORDER BY c.id, c.key
    ON CONFLICT (workflow_id, key) DO NOTHING
    RETURNING workflow_id, key, units
), given_back AS (
    INSERT INTO dbosflow.used_units (workflow_id, key, units)
    SELECT DISTINCT c.id, '', -c.taken
    FROM used u
    JOIN call c ON c.id = u.workflow_id AND c.key = u.key
    WHERE c.taken IS NOT NULL
    ORDER BY c.id
    ON CONFLICT (workflow_id, key) DO NOTHING
    RETURNING workflow_id, units
), change AS MATERIALIZED (
    SELECT c.bucket, CASE WHEN c.bucket IS NULL THEN c.queue END AS queue, sum(n.units)::double precision AS units
    FROM (SELECT u.workflow_id, u.units FROM used u UNION ALL SELECT g.workflow_id, g.units FROM given_back g) AS n
    JOIN (SELECT DISTINCT c.id, c.queue, c.bucket FROM call c) AS c ON c.id = n.workflow_id
    GROUP BY 1, 2
    HAVING sum(n.units) <> 0
), queue AS MATERIALIZED (
    SELECT q.name FROM dbosflow.queue q
    WHERE q.name = ANY(ARRAY(SELECT c.queue FROM change c))
    ORDER BY q.name
    FOR NO KEY UPDATE
), bucket AS MATERIALIZED (
    SELECT b.name FROM dbosflow.bucket b
    WHERE b.name = ANY(ARRAY(SELECT c.bucket FROM change c)) AND (SELECT count(*) FROM queue) >= 0
    ORDER BY b.name
    FOR NO KEY UPDATE
), moved_queue AS (
    UPDATE dbosflow.queue r SET rate_next_at = :part_moved, rate_moved_at = clock_timestamp()
    FROM change c
    WHERE r.name = c.queue AND r.name = ANY(ARRAY(SELECT name FROM queue))
), moved_bucket AS (
    UPDATE dbosflow.bucket r SET rate_next_at = :part_moved, rate_moved_at = clock_timestamp()
    FROM change c
    WHERE r.name = c.bucket AND r.name = ANY(ARRAY(SELECT name FROM bucket))
)
SELECT q.name
FROM change c
JOIN dbosflow.queue q ON q.name = c.queue OR q.bucket = c.bucket
WHERE c.units < 0
ORDER BY q.name;

-- name: part_moved (when all of the rate of the row `r` is even after the change `c`; up to a century ahead)
greatest(r.rate_next_at - greatest(r.rate_moved_at - clock_timestamp(), interval '0'), clock_timestamp())
    + least(c.units * r.rate_period / r.rate_count, 3e9) * interval '1 second'
