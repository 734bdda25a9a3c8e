-- Queues with limits. A running workflow is its own slot: a claim counts what runs, and nothing is ever given back, so nothing
-- can be lost. For the count to hold, claims of a queue take turns, by a lock of its row; and they count in a later statement
-- than the one that has the lock: the snapshot of the same statement could be older than the claim before.

-- name: part_room (how many more of the queue `q` may run: in all, and of them in the worker; null: without limit)
-- Indexes: workflow_slot; workflow_owned for the worker's own.
least(
    CASE WHEN q.concurrency IS NOT NULL THEN q.concurrency - (
        SELECT count(*) FROM dbosflow.workflow r
        WHERE r.status = 'running' AND r.slot IS NOT NULL AND r.slot = q.name) END,
    CASE WHEN q.worker_concurrency IS NOT NULL THEN q.worker_concurrency - (
        SELECT count(*) FROM dbosflow.workflow r
        WHERE r.worker_id BETWEEN :worker_id::uuid AND :worker_id::uuid AND r.status = 'running' AND r.slot = q.name) END)

-- name: part_rate (what the rate of the queue `q` allows now: its bucket's, or its own)
-- `tokens`: how many units may begin, null: any number; `unit`: the seconds of one; `even_at`: when all is even. By the generic
-- cell rate algorithm (ATM Forum, Traffic Management 4.0): what begins moves `rate_next_at` on by its share of the period, and
-- that may be ahead of now by the burst; by more, after a start of more units than the burst, or a correction. Where the clock
-- was put back since it was moved, it is as far ahead as it was then, and a claim moves it by nothing (`is_put_back`): else no
-- time would pass for it. The time is that of the statement: the transaction's may be older than the claim before.
(
    SELECT r.bucket, r.burst, r.unit, r.even_at, r.is_put_back, r.is_paused, r.pause_ends_at,
           CASE WHEN r.unit IS NOT NULL THEN greatest(floor(
               r.burst - extract(epoch FROM r.even_at - statement_timestamp())::double precision / r.unit), 0)::integer END AS tokens
    FROM (
        SELECT b.name AS bucket, coalesce(b.rate_burst, q.rate_burst) AS burst,
               coalesce(b.rate_period / b.rate_count, q.rate_period / q.rate_count) AS unit,
               greatest(coalesce(b.rate_next_at, q.rate_next_at)
                        - greatest(coalesce(b.rate_moved_at, q.rate_moved_at) - statement_timestamp(), interval '0'),
                        statement_timestamp()) AS even_at,
               coalesce(b.rate_moved_at, q.rate_moved_at) > statement_timestamp() AS is_put_back,
               coalesce(b.paused AND coalesce(b.pause_ends_at > now(), true), false) AS is_paused,
               CASE WHEN b.paused AND b.pause_ends_at > now() THEN b.pause_ends_at END AS pause_ends_at
        FROM (SELECT q.bucket AS name) AS own
        LEFT JOIN dbosflow.bucket b ON b.name = own.name
    ) AS r
)

-- name: part_open (whether the queue `q`, with its `rate`, is not paused)
(q.settled AND NOT (q.paused AND coalesce(q.pause_ends_at > now(), true)) AND NOT rate.is_paused)

-- name: lock (the turn of one claimer, until its transaction ends; and why there is none)
-- Who has nothing to take, or no room for it, as far as can be seen, takes no lock, so that a full queue costs no commit.
-- Whoever makes room, or enqueues, does so before it gives notice; so who is notified sees it here. Locks: the queue's row
-- FOR NO KEY UPDATE, then that of its bucket; who finds one locked is told so. The setting is the transaction's own: it tells
-- the next statement.
WITH found AS MATERIALIZED (
    SELECT q.name, :part_open AS is_open, :part_room AS room, q.settled,
           extract(epoch FROM greatest(CASE WHEN q.paused AND q.pause_ends_at > now() THEN q.pause_ends_at END,
                                       rate.pause_ends_at) - now())::double precision AS paused_for,
           EXISTS (SELECT FROM dbosflow.workflow w
                   WHERE w.status = 'queued' AND w.queue = :queue::text AND w.name = ANY(:names::text[])) AS waits,
           rate.tokens,
           CASE WHEN first.needs > rate.tokens
                THEN extract(epoch FROM rate.even_at - statement_timestamp())::double precision
                     - (rate.burst - first.needs) * rate.unit END AS rate_for,
           CASE WHEN first.needs > rate.tokens AND rate.is_put_back IS NOT TRUE THEN NOT (:suspects::boolean AND EXISTS (
               SELECT FROM dbosflow.workflow w -- these have begun before
               WHERE w.status = 'queued' AND w.recoveries >= 3 AND w.queue = :queue::text AND w.name = ANY(:names::text[])))
           END AS is_held
    FROM dbosflow.queue q
    CROSS JOIN LATERAL :part_rate AS rate
    LEFT JOIN LATERAL ( -- what the first one needs; nothing if it has begun before, for that is not held up
        SELECT CASE WHEN w.epoch = 0 THEN least(coalesce(w.units, 1), rate.burst) END AS needs
        FROM dbosflow.workflow w
        WHERE w.status = 'queued' AND w.queue = :queue::text AND w.name = ANY(:names::text[]) AND w.recoveries < 3
          AND rate.tokens IS NOT NULL
        ORDER BY w.queue, w.priority, w.created_at, w.id
        LIMIT 1
    ) AS first ON true
    WHERE q.name = :name::text
), locked AS MATERIALIZED (
    SELECT q.name, q.bucket FROM dbosflow.queue q
    WHERE q.name = :name::text
      AND EXISTS (SELECT FROM found WHERE is_open AND waits AND coalesce(room > 0, true) AND is_held IS NOT TRUE)
    FOR NO KEY UPDATE SKIP LOCKED
), bucket AS MATERIALIZED (
    SELECT b.name FROM dbosflow.bucket b WHERE b.name = (SELECT l.bucket FROM locked l)
    FOR NO KEY UPDATE SKIP LOCKED
)
SELECT f.is_open, f.room::integer AS room, f.settled, f.paused_for, f.waits, f.tokens, f.rate_for,
       f.is_held IS TRUE AS is_held,
       coalesce((SELECT set_config('dbosflow.claims_of', l.name, true) FROM locked l
                 WHERE l.bucket IS NULL OR EXISTS (SELECT FROM bucket)) = f.name, false) AS locked
FROM found f;

-- name: claim (from a queue whose row this transaction holds: as many as it has room for, and its rate has units for)
-- But for that, the same as `claim` in workflow.sql, which gives the reasons. Those that begin are taken in strict order: one
-- of more units than there are waits for them, and so do all behind it; one of more than the burst waits for all of that.
WITH lease AS MATERIALIZED (
    SELECT id FROM dbosflow.worker
    WHERE id = :worker_id::uuid AND state = 'live' AND suspect IS NULL
      AND current_setting('dbosflow.claims_of', true) = :name::text
    FOR KEY SHARE
), room AS MATERIALIZED (
    SELECT greatest(least(:limit::integer, :part_room), 0)::integer AS most, rate.*
    FROM lease
    CROSS JOIN dbosflow.queue q
    CROSS JOIN LATERAL :part_rate AS rate
    WHERE q.name = :name::text AND :part_open
), suspect AS MATERIALIZED (
    SELECT w.id
    FROM dbosflow.workflow w
    WHERE w.status = 'queued' AND w.recoveries >= 3 AND w.queue = :queue::text AND w.name = ANY(:names::text[])
    ORDER BY w.queue, w.recoveries, w.created_at, w.id
    LIMIT CASE WHEN :suspects::boolean THEN coalesce((SELECT least(most, 1) FROM room), 0) ELSE 0 END
    FOR UPDATE SKIP LOCKED
), accused AS (
    UPDATE dbosflow.worker k SET suspect = s.id
    FROM suspect s
    WHERE k.id = :worker_id::uuid
), allowed AS MATERIALIZED ( -- with a rate: how many of the first ones it has units for; `needs` as in `lock`
    SELECT count(*) AS most
    FROM (
        SELECT sum(CASE WHEN c.epoch = 0 THEN least(coalesce(c.units, 1), (SELECT burst FROM room)) ELSE 0 END)
                   OVER (ORDER BY c.priority, c.created_at, c.id) <= (SELECT tokens FROM room) AS fits
        FROM (
            SELECT w.epoch, w.units, w.priority, w.created_at, w.id
            FROM dbosflow.workflow w
            WHERE w.status = 'queued' AND w.queue = :queue::text AND w.name = ANY(:names::text[])
              AND w.recoveries < 3 AND NOT EXISTS (SELECT FROM suspect)
            ORDER BY w.queue, w.priority, w.created_at, w.id
            LIMIT coalesce((SELECT most FROM room WHERE tokens IS NOT NULL), 0)
        ) AS c
    ) AS one
    WHERE fits
), first AS MATERIALIZED (
    SELECT w.id, w.epoch, w.units, w.priority, w.created_at
    FROM dbosflow.workflow w
    WHERE w.status = 'queued' AND w.queue = :queue::text AND w.name = ANY(:names::text[])
      AND w.recoveries < 3 AND NOT EXISTS (SELECT FROM suspect)
    ORDER BY w.queue, w.priority, w.created_at, w.id
    LIMIT coalesce((SELECT CASE WHEN tokens IS NULL THEN most ELSE (SELECT most FROM allowed) END FROM room), 0)
    FOR UPDATE SKIP LOCKED
), free AS MATERIALIZED ( -- others than were counted, if some of those are locked
    SELECT f.id, f.epoch, f.units
    FROM (
        SELECT first.*, room.tokens,
               sum(CASE WHEN first.epoch = 0 THEN least(coalesce(first.units, 1), room.burst) ELSE 0 END)
                   OVER (ORDER BY first.priority, first.created_at, first.id) AS needs
        FROM first CROSS JOIN room
    ) AS f
    WHERE f.tokens IS NULL OR f.needs <= f.tokens
), begun AS MATERIALIZED ( -- where the rate lets fewer begin than there is room for: of the first ones, what began before
    SELECT w.id
    FROM dbosflow.workflow w
    WHERE w.id = ANY(ARRAY(
              SELECT f.id FROM (
                  SELECT w.id, w.epoch FROM dbosflow.workflow w
                  WHERE w.status = 'queued' AND w.queue = :queue::text AND w.name = ANY(:names::text[])
                    AND w.recoveries < 3 AND NOT EXISTS (SELECT FROM suspect)
                  ORDER BY w.queue, w.priority, w.created_at, w.id
                  LIMIT coalesce((SELECT most FROM room WHERE tokens IS NOT NULL AND (SELECT most FROM allowed) < most), 0)
              ) AS f WHERE f.epoch > 0))
      AND w.id <> ALL(ARRAY(SELECT id FROM free)) AND w.status IS NOT DISTINCT FROM 'queued'
    LIMIT coalesce((SELECT most FROM room), 0) - (SELECT count(*) FROM free)
    FOR UPDATE SKIP LOCKED
), paid AS MATERIALIZED (
    SELECT room.bucket, room.even_at + least(coalesce(begins.units, 0) * room.unit, 3e9) * interval '1 second' AS next_at
    FROM room
    CROSS JOIN (SELECT sum(coalesce(units, 1)) AS units FROM free WHERE epoch = 0) AS begins
    WHERE room.tokens IS NOT NULL AND (begins.units IS NOT NULL OR room.is_put_back)
), paid_by_queue AS (
    UPDATE dbosflow.queue q SET rate_next_at = paid.next_at, rate_moved_at = statement_timestamp()
    FROM paid
    WHERE q.name = :name::text AND paid.bucket IS NULL
), paid_by_bucket AS (
    UPDATE dbosflow.bucket b SET rate_next_at = paid.next_at, rate_moved_at = statement_timestamp()
    FROM paid
    WHERE b.name = paid.bucket
)
UPDATE dbosflow.workflow w
SET status = 'running', worker_id = lease.id, epoch = w.epoch + 1, slot = :name::text,
    started_at = coalesce(w.started_at, statement_timestamp()), -- by which its rate has let it begin
    charged = CASE WHEN w.epoch = 0 AND room.tokens IS NOT NULL THEN coalesce(room.bucket, '') ELSE w.charged END,
    timed_out = CASE WHEN w.deadline_at <= now() THEN w.cancel_requested_at IS NULL OR w.timed_out ELSE w.timed_out END,
    cancel_requested_at = CASE WHEN w.deadline_at <= now() THEN coalesce(w.cancel_requested_at, now())
                               ELSE w.cancel_requested_at END
FROM unnest(ARRAY(SELECT id FROM free) || ARRAY(SELECT id FROM suspect) || ARRAY(SELECT id FROM begun)) AS taken (id), lease, room
WHERE w.id = taken.id
RETURNING w.id, w.name, w.queue, w.epoch, w.input::text AS input, to_json(w.input_streams)::text AS input_streams,
          w.recoveries, CASE WHEN w.cancel_requested_at IS NOT NULL THEN json_build_array(w.cancel_reason, w.timed_out)::text END AS request,
          w.parent_id IS NOT NULL AS is_child,
          extract(epoch FROM w.deadline_at - now())::double precision AS remaining;

-- name: exists (whether the queue has limits)
SELECT EXISTS (SELECT FROM dbosflow.queue WHERE name = :name::text) AS is_limited;

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
-- A rate with a `bucket` is that one's, for all of its queues: the last one that is applied holds. Locks: the queue's row, then
-- the bucket's.
WITH queued AS (
    INSERT INTO dbosflow.queue AS r
        (name, concurrency, worker_concurrency, paused, pause_ends_at, rate_count, rate_period, rate_burst, bucket)
    VALUES (:name::text, :concurrency::integer, :worker_concurrency::integer, coalesce(:paused::boolean, false),
            coalesce(to_timestamp(:pause_ends_at::double precision), now() + :pause_for::double precision * interval '1 second'),
            CASE WHEN :bucket::text IS NULL THEN :rate_count::integer END,
            CASE WHEN :bucket::text IS NULL THEN :rate_period::double precision END,
            CASE WHEN :bucket::text IS NULL THEN :rate_burst::integer END, :bucket::text)
    ON CONFLICT (name) DO UPDATE
    SET concurrency = CASE WHEN 'concurrency' = ANY(:changed::text[]) THEN excluded.concurrency ELSE r.concurrency END,
        worker_concurrency = CASE WHEN 'worker_concurrency' = ANY(:changed::text[]) THEN excluded.worker_concurrency
                                  ELSE r.worker_concurrency END,
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
)
SELECT settled FROM queued;

-- name: delete (a claim that is under way is waited for)
DELETE FROM dbosflow.queue WHERE name = :name::text RETURNING name;

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
       coalesce(b.rate_count, q.rate_count) AS rate_count, coalesce(b.rate_period, q.rate_period) AS rate_period,
       coalesce(b.rate_burst, q.rate_burst) AS rate_burst, b.name AS bucket,
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
