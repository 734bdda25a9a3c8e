-- The limits of queues and buckets, as they are set and shown. See queue.sql for how claims keep them.

-- name: part_changed (when the next one would begin by another rate, of the row `r`: its burst is used up, and a debt remains)
CASE WHEN (excluded.rate_count, excluded.rate_period, excluded.rate_burst)
          IS NOT DISTINCT FROM (r.rate_count, r.rate_period, r.rate_burst) THEN r.rate_next_at
     ELSE clock_timestamp() + excluded.rate_period / excluded.rate_count * interval '1 second' * greatest(
         excluded.rate_burst,
         extract(epoch FROM r.rate_next_at - greatest(r.rate_moved_at, clock_timestamp()))::double precision
             * r.rate_count / r.rate_period) END

-- name: clock
SELECT extract(epoch FROM now())::double precision AS now;

-- name: apply (sets what is among the `changed`; a claim that is under way is waited for)
-- A rate with a `bucket` is that one's, for all of its queues: the last one that is applied holds. A queue that `joins` has that
-- of the bucket, if it is still there. Locks: the queue's row, then the bucket's.
WITH queued AS (
    INSERT INTO dbosflow.queue AS r
        (name, concurrency, worker_concurrency, partition_concurrency, weights, paused, pause_ends_at, rate_count, rate_period,
         rate_burst, bucket, partition_rate_count, partition_rate_period, partition_rate_burst)
    VALUES (:name::text, :concurrency::integer, :worker_concurrency::integer, :partition_concurrency::integer, :weights::json,
            coalesce(:paused::boolean, false),
            coalesce(to_timestamp(:pause_ends_at::double precision), now() + :pause_for::double precision * interval '1 second'),
            CASE WHEN :bucket::text IS NULL THEN :rate_count::integer END,
            CASE WHEN :bucket::text IS NULL THEN :rate_period::double precision END,
            CASE WHEN :bucket::text IS NULL THEN :rate_burst::integer END, :bucket::text,
            :partition_rate_count::integer, :partition_rate_period::double precision, :partition_rate_burst::integer)
    ON CONFLICT (name) DO UPDATE
    SET concurrency = CASE WHEN 'concurrency' = ANY(:changed::text[]) THEN excluded.concurrency ELSE r.concurrency END,
        worker_concurrency = CASE WHEN 'worker_concurrency' = ANY(:changed::text[]) THEN excluded.worker_concurrency
                                  ELSE r.worker_concurrency END,
        partition_concurrency = CASE WHEN 'partition_concurrency' = ANY(:changed::text[]) THEN excluded.partition_concurrency
                                     ELSE r.partition_concurrency END,
        partition_rate_count = CASE WHEN 'partition_rate_count' = ANY(:changed::text[]) THEN excluded.partition_rate_count
                                    ELSE r.partition_rate_count END,
        partition_rate_period = CASE WHEN 'partition_rate_count' = ANY(:changed::text[]) THEN excluded.partition_rate_period
                                     ELSE r.partition_rate_period END,
        partition_rate_burst = CASE WHEN 'partition_rate_count' = ANY(:changed::text[]) THEN excluded.partition_rate_burst
                                    ELSE r.partition_rate_burst END,
        weights = CASE WHEN 'weights' = ANY(:changed::text[]) THEN excluded.weights ELSE r.weights END,
        paused = CASE WHEN 'paused' = ANY(:changed::text[]) THEN excluded.paused ELSE r.paused END,
        pause_ends_at = CASE WHEN 'paused' = ANY(:changed::text[]) THEN excluded.pause_ends_at ELSE r.pause_ends_at END,
        rate_count = CASE WHEN 'rate_count' = ANY(:changed::text[]) THEN excluded.rate_count ELSE r.rate_count END,
        rate_period = CASE WHEN 'rate_count' = ANY(:changed::text[]) THEN excluded.rate_period ELSE r.rate_period END,
        rate_burst = CASE WHEN 'rate_count' = ANY(:changed::text[]) THEN excluded.rate_burst ELSE r.rate_burst END,
        bucket = CASE WHEN 'rate_count' = ANY(:changed::text[]) THEN excluded.bucket ELSE r.bucket END,
        rate_next_at = CASE WHEN NOT 'rate_count' = ANY(:changed::text[]) THEN r.rate_next_at
                            WHEN excluded.rate_count IS NULL OR r.rate_count IS NULL AND r.bucket IS NULL THEN NULL
                            ELSE :part_changed END,
        rate_moved_at = CASE WHEN 'rate_count' = ANY(:changed::text[])
                                  AND (excluded.rate_count, excluded.rate_period, excluded.rate_burst)
                                      IS DISTINCT FROM (r.rate_count, r.rate_period, r.rate_burst)
                             THEN clock_timestamp() ELSE r.rate_moved_at END,
        updated_at = now()
    RETURNING settled
), bucketed AS (
    INSERT INTO dbosflow.bucket AS r (name, rate_count, rate_period, rate_burst)
    SELECT :bucket::text, :rate_count::integer, :rate_period::double precision, :rate_burst::integer
    FROM queued
    WHERE :bucket::text IS NOT NULL AND 'rate_count' = ANY(:changed::text[])
    ON CONFLICT (name) DO UPDATE
    SET rate_count = excluded.rate_count, rate_period = excluded.rate_period, rate_burst = excluded.rate_burst,
        rate_next_at = :part_changed,
        rate_moved_at = CASE WHEN (excluded.rate_count, excluded.rate_period, excluded.rate_burst)
                                  IS DISTINCT FROM (r.rate_count, r.rate_period, r.rate_burst)
                             THEN clock_timestamp() ELSE r.rate_moved_at END,
        updated_at = now()
    WHERE NOT :joins::boolean
)
SELECT settled FROM queued;

-- name: bucket
SELECT b.rate_count, b.rate_period, b.rate_burst, b.name AS bucket FROM dbosflow.bucket b WHERE b.name = :bucket::text;

-- name: hold (a claim that is under way is waited for, and no other begins until this transaction ends)
SELECT FROM dbosflow.queue WHERE name = :name::text FOR NO KEY UPDATE;

-- name: change_partitions (what partitions have taken, by another rate: as above; for `apply` in the same transaction)
-- One of which nothing is taken keeps all of its burst, as one has that has no row. Index: partition_rate_pkey.
WITH q AS MATERIALIZED (
    SELECT q.name, q.partition_rate_period / q.partition_rate_count AS unit,
           :partition_rate_period::double precision / :partition_rate_count::integer AS new_unit
    FROM dbosflow.queue q
    WHERE q.name = :name::text AND (q.partition_rate_count, q.partition_rate_period, q.partition_rate_burst)
        IS DISTINCT FROM (:partition_rate_count::integer, :partition_rate_period::double precision, :partition_rate_burst::integer)
), taken AS MATERIALIZED (
    SELECT r.key, q.new_unit,
           extract(epoch FROM r.next_at - greatest(r.moved_at, statement_timestamp()))::double precision / q.unit AS units
    FROM dbosflow.partition_rate r
    JOIN q ON r.queue = q.name
), deleted AS (
    DELETE FROM dbosflow.partition_rate r USING taken t
    WHERE r.queue = :name::text AND r.key = t.key AND (t.new_unit IS NULL OR t.units <= 0)
)
UPDATE dbosflow.partition_rate r
SET moved_at = statement_timestamp(),
    next_at = statement_timestamp()
        + least(t.new_unit * greatest(:partition_rate_burst::integer, t.units), 3e9) * interval '1 second'
FROM taken t
WHERE r.queue = :name::text AND r.key = t.key AND t.new_unit IS NOT NULL AND t.units > 0;

-- name: delete (a claim that is under way is waited for)
DELETE FROM dbosflow.queue WHERE name = :name::text RETURNING name;

-- name: delete_partitions (in a later statement, which sees what such a claim has written)
DELETE FROM dbosflow.partition_rate WHERE queue = :name::text;

-- name: delete_even (of a page of partitions those of which nothing is taken; and where the next page begins)
-- Such a row says the same as none. Whoever writes it at this time, or has read it before, has counted from now on. What others
-- write is skipped, and no row of a queue is locked. Index: partition_rate_pkey.
WITH page AS MATERIALIZED (
    SELECT r.queue, r.key
    FROM dbosflow.partition_rate r
    WHERE (r.queue, r.key) > (:queue::text, :key::text)
    ORDER BY r.queue, r.key
    LIMIT 1000
), even AS MATERIALIZED (
    SELECT e.place
    FROM page p
    CROSS JOIN LATERAL (
        SELECT r.ctid AS place
        FROM dbosflow.partition_rate r
        WHERE r.queue = p.queue AND r.key = p.key AND r.next_at <= statement_timestamp()
        FOR UPDATE SKIP LOCKED
    ) AS e
), deleted AS (
    DELETE FROM dbosflow.partition_rate r WHERE r.ctid = ANY(ARRAY(SELECT place FROM even))
)
SELECT max(p.queue) FILTER (WHERE p.number = 1000) AS queue, max(p.key) FILTER (WHERE p.number = 1000) AS key
FROM (SELECT p.queue, p.key, row_number() OVER (ORDER BY p.queue, p.key) AS number FROM page p) AS p;

-- name: under_way (whether a statement is under way whose snapshot is older than the queue's row; and what is being committed)
-- Such a statement may claim without limits. See retention.sql for how sessions show this. Of those of other roles an ordinary
-- one sees neither the type nor the state: those that have a user count as clients (autovacuum has none), and as not idle.
SELECT EXISTS (
           SELECT FROM pg_stat_activity a
           WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
             AND a.usesysid IS NOT NULL AND coalesce(a.backend_type, 'client backend') = 'client backend'
             AND coalesce(a.state, '') NOT LIKE 'idle in transaction%' AND age(a.backend_xmin) >= age(q.xmin)) AS older,
       array(SELECT a.backend_xid::text FROM pg_stat_activity a
             WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.backend_xid IS NOT NULL
               AND coalesce(a.state, '') NOT LIKE 'idle in transaction%') AS writers
FROM dbosflow.queue q
WHERE q.name = :name::text AND NOT q.settled;

-- name: mark (what runs of the queue and is not counted: it was claimed before the queue had limits)
-- What others hold is skipped, and looked at again. Index: workflow_owned, all of it, once when a queue gets its first limits.
WITH unmarked AS MATERIALIZED (
    SELECT w.id
    FROM dbosflow.workflow w
    WHERE w.worker_id IS NOT NULL AND w.status = 'running' AND w.slot IS DISTINCT FROM :name::text
      AND regexp_replace(split_part(w.queue, chr(31), 1), '^dbosflow/pinned/[^/]*/', '') = :name::text
), taken AS MATERIALIZED (
    SELECT w.id FROM dbosflow.workflow w
    WHERE w.id = ANY(ARRAY(SELECT id FROM unmarked)) AND w.status = 'running'
    ORDER BY w.id
    FOR NO KEY UPDATE SKIP LOCKED
), marked AS (
    UPDATE dbosflow.workflow w SET slot = :name::text
    FROM unnest(ARRAY(SELECT id FROM taken)) AS t (id)
    WHERE w.id = t.id
)
SELECT (SELECT count(*) FROM unmarked) > (SELECT count(*) FROM taken) AS again;

-- name: settle
UPDATE dbosflow.queue SET settled = true WHERE name = :name::text AND NOT settled;

-- name: queues_of (those that share the bucket of a queue, or the one of this name)
SELECT q.name FROM dbosflow.queue q
WHERE q.bucket = coalesce(:bucket::text, (SELECT o.bucket FROM dbosflow.queue o WHERE o.name = :name::text))
ORDER BY q.name;

-- name: unused (locks the buckets that no queue has, as far as this snapshot knows: for `delete_unused` in the same transaction)
-- A queue that is about to get one holds the row. So who has it sees, in a later statement, whether it is still unused.
SELECT b.name FROM dbosflow.bucket b
WHERE NOT EXISTS (SELECT FROM dbosflow.queue q WHERE q.bucket = b.name)
ORDER BY b.name
FOR UPDATE;

-- name: delete_unused
DELETE FROM dbosflow.bucket b
WHERE b.name = ANY(:names::text[]) AND NOT EXISTS (SELECT FROM dbosflow.queue q WHERE q.bucket = b.name);

-- name: pause_bucket (its queues, which are to be told; none: there is no such bucket)
UPDATE dbosflow.bucket b
SET paused = :paused::boolean, updated_at = now(),
    pause_ends_at = coalesce(to_timestamp(:pause_ends_at::double precision),
                             now() + :pause_for::double precision * interval '1 second')
WHERE b.name = :bucket::text
RETURNING b.name;

-- name: list (the queues that have limits, or work; with what waits and runs; for people: reads all that waits or runs)
WITH work AS (
    SELECT regexp_replace(split_part(w.queue, chr(31), 1), '^dbosflow/pinned/[^/]*/', '') AS name,
           count(*) FILTER (WHERE w.status = 'queued') AS waiting,
           count(*) FILTER (WHERE w.status = 'running') AS running,
           min(w.created_at) FILTER (WHERE w.status = 'queued') AS oldest
    FROM (
        (SELECT w.queue, w.status, w.created_at FROM dbosflow.workflow w WHERE w.status = 'queued' AND w.queue >= '')
        UNION ALL
        (SELECT w.queue, w.status, w.created_at FROM dbosflow.workflow w
         WHERE w.worker_id IS NOT NULL AND w.status = 'running')
    ) AS w
    GROUP BY 1
)
SELECT coalesce(q.name, work.name) AS name, q.name IS NOT NULL AS limited, q.concurrency, q.worker_concurrency,
       q.partition_concurrency, coalesce(q.weights, '{}')::text AS weights,
       coalesce(b.rate_count, q.rate_count) AS rate_count, coalesce(b.rate_period, q.rate_period) AS rate_period,
       coalesce(b.rate_burst, q.rate_burst) AS rate_burst, b.name AS bucket,
       q.partition_rate_count, q.partition_rate_period, q.partition_rate_burst,
       coalesce(q.paused AND coalesce(q.pause_ends_at > now(), true), false)
           OR coalesce(b.paused AND coalesce(b.pause_ends_at > now(), true), false) AS paused,
       CASE WHEN q.paused AND q.pause_ends_at IS NULL OR b.paused AND b.pause_ends_at IS NULL THEN NULL
            ELSE greatest(CASE WHEN q.paused AND q.pause_ends_at > now() THEN q.pause_ends_at END,
                          CASE WHEN b.paused AND b.pause_ends_at > now() THEN b.pause_ends_at END) END AS paused_until,
       coalesce(work.waiting, 0) AS waiting, coalesce(work.running, 0) AS running, work.oldest,
       extract(epoch FROM now() - work.oldest)::double precision AS oldest_age
FROM dbosflow.queue q
LEFT JOIN dbosflow.bucket b ON b.name = q.bucket
FULL JOIN work ON work.name = q.name
WHERE coalesce(q.name, work.name) <> '' AND (:name::text IS NULL OR coalesce(q.name, work.name) = :name::text)
ORDER BY 1;
