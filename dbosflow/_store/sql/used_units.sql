-- What workflows have really used of the rates of their queues. See queue.sql for how a rate is kept.

-- name: use (makes calls count, each of another workflow or key; returns the queues for which there may be units again)
-- A row for each call that has counted, so that one which is repeated does not count again, written with the change of the
-- rate. The row without a key says that the units of the start were given back. An ended workflow uses nothing, nor does its
-- former owner's body (`epoch`; null: an attempt of a step, which has used something whoever owns the workflow now).
-- What counts for the rate of a queue or bucket, and for that of its partitions, is reckoned for each: only what the start has
-- taken of it is given back to it.
-- Locks: the queue's row, if the rate is its own or its partitions', then the bucket's; those of several in order, and then rows
-- of partitions. Claims skip what is locked.
WITH call AS MATERIALIZED (
    SELECT c.id, c.key, c.units, q.name AS queue, coalesce(nullif(w.charged, ''), CASE WHEN w.charged IS NULL THEN q.bucket END) AS bucket,
           CASE WHEN w.charged IS NOT NULL OR w.charged_partition THEN coalesce(w.units, 1) END AS taken,
           w.charged IS NOT NULL AS is_charged, coalesce(w.charged_partition, false) AS is_partition_charged, w.partition
    FROM unnest(:ids::text[], :keys::text[], :units::integer[], :queues::text[], :epochs::integer[])
         AS c (id, key, units, queue, epoch)
    CROSS JOIN LATERAL (
        SELECT w.units, w.charged, w.charged_partition, split_part(w.queue, chr(31), 2) AS partition FROM dbosflow.workflow w
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
       OR EXISTS (SELECT FROM dbosflow.queue q WHERE q.name = c.queue AND q.partition_rate_count IS NOT NULL)
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
), counted AS MATERIALIZED (
    SELECT c.*, n.units AS counts, n.is_given_back
    FROM (SELECT u.workflow_id, u.units, false AS is_given_back FROM used u
          UNION ALL
          SELECT g.workflow_id, g.units, true FROM given_back g) AS n
    JOIN (SELECT DISTINCT c.id, c.queue, c.bucket, c.partition, c.is_charged, c.is_partition_charged FROM call c) AS c
      ON c.id = n.workflow_id
), change AS MATERIALIZED (
    SELECT n.bucket, CASE WHEN n.bucket IS NULL THEN n.queue END AS queue, sum(n.counts)::double precision AS units
    FROM counted n
    WHERE n.is_charged OR NOT n.is_given_back
    GROUP BY 1, 2
    HAVING sum(n.counts) <> 0
), change_of_partition AS MATERIALIZED (
    SELECT n.queue, n.partition, sum(n.counts)::double precision AS units
    FROM counted n
    JOIN dbosflow.queue q ON q.name = n.queue AND q.partition_rate_count IS NOT NULL
    WHERE n.is_partition_charged OR NOT n.is_given_back
    GROUP BY 1, 2
    HAVING sum(n.counts) <> 0
), queue AS MATERIALIZED (
    SELECT q.name, q.partition_rate_period / q.partition_rate_count AS partition_unit
    FROM dbosflow.queue q
    WHERE q.name = ANY(ARRAY(SELECT c.queue FROM change c UNION SELECT c.queue FROM change_of_partition c))
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
), moved_partition AS (
    INSERT INTO dbosflow.partition_rate AS r (queue, key, next_at, moved_at)
    SELECT c.queue, c.partition, c.at + greatest(least(c.units * c.unit, 3e9), -3e9) * interval '1 second', c.at
    FROM (
        SELECT c.*, q.partition_unit AS unit, clock_timestamp() AS at
        FROM change_of_partition c
        JOIN queue q ON q.name = c.queue AND q.partition_unit IS NOT NULL
        OFFSET 0
    ) AS c
    ORDER BY c.queue, c.partition
    ON CONFLICT (queue, key) DO UPDATE
    SET next_at = greatest(r.next_at - greatest(r.moved_at - excluded.moved_at, interval '0'), excluded.moved_at)
                  + (excluded.next_at - excluded.moved_at),
        moved_at = excluded.moved_at
)
SELECT q.name
FROM dbosflow.queue q
WHERE EXISTS (SELECT FROM change c WHERE c.units < 0 AND (q.name = c.queue OR q.bucket = c.bucket))
   OR EXISTS (SELECT FROM change_of_partition c WHERE c.units < 0 AND q.name = c.queue)
ORDER BY q.name;

-- name: part_moved (when all of the rate of the row `r` is even after the change `c`; by up to a century, either way)
greatest(r.rate_next_at - greatest(r.rate_moved_at - clock_timestamp(), interval '0'), clock_timestamp())
    + greatest(least(c.units * r.rate_period / r.rate_count, 3e9), -3e9) * interval '1 second'
