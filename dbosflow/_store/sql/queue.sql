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

-- name: part_rate (how many of the queue `q` may begin now by its rate, null: any number; the share of one; when all is even)
-- By the generic cell rate algorithm (ATM Forum, Traffic Management 4.0): each that begins moves `rate_next_at` on by its
-- share of the period, and that may be ahead of now by the burst. One that lies further ahead is of a clock that was put
-- back since, and is not believed.
(
    SELECT e.share, e.even_at, CASE WHEN q.rate_count IS NOT NULL THEN greatest(floor(
               q.rate_burst - extract(epoch FROM e.even_at - now())::double precision * q.rate_count / q.rate_period
           ), 0)::integer END AS tokens
    FROM (
        SELECT s.share, CASE WHEN q.rate_next_at < now() + (q.rate_burst + 1) * s.share
                             THEN greatest(q.rate_next_at, now()) ELSE now() END AS even_at
        FROM (SELECT q.rate_period / q.rate_count * interval '1 second' AS share) AS s
    ) AS e
)

-- name: part_open (whether the queue `q` is not paused)
(q.settled AND NOT (q.paused AND coalesce(q.pause_ends_at > now(), true)))

-- name: lock (the turn of one claimer, until its transaction ends; and why there is none)
-- Who has nothing to take, or no room for it, as far as can be seen, takes no lock, so that a full queue costs no commit.
-- Whoever makes room, or enqueues, does so before it gives notice; so who is notified sees it here. Locks: the queue's row
-- FOR NO KEY UPDATE; who finds it locked is told so. The setting is the transaction's own: it tells the next statement.
WITH found AS MATERIALIZED (
    SELECT q.name, :part_open AS is_open, :part_room AS room, q.settled,
           CASE WHEN q.paused AND q.pause_ends_at > now()
                THEN extract(epoch FROM q.pause_ends_at - now())::double precision END AS paused_for,
           EXISTS (SELECT FROM dbosflow.workflow w
                   WHERE w.status = 'queued' AND w.queue = :queue::text AND w.name = ANY(:names::text[])) AS waits,
           rate.tokens,
           CASE WHEN rate.tokens = 0
                THEN extract(epoch FROM rate.even_at - now() - (q.rate_burst - 1) * rate.share)::double precision END AS rate_for,
           CASE WHEN rate.tokens = 0 THEN ( -- what has begun before is not held up
               SELECT w.epoch = 0 FROM dbosflow.workflow w
               WHERE w.status = 'queued' AND w.queue = :queue::text AND w.name = ANY(:names::text[])
               ORDER BY w.queue, w.priority, w.created_at, w.id LIMIT 1) END AS is_held
    FROM dbosflow.queue q
    CROSS JOIN LATERAL :part_rate AS rate
    WHERE q.name = :name::text
), locked AS MATERIALIZED (
    SELECT q.name FROM dbosflow.queue q
    WHERE q.name = :name::text
      AND EXISTS (SELECT FROM found WHERE is_open AND waits AND coalesce(room > 0, true) AND is_held IS NOT TRUE)
    FOR NO KEY UPDATE SKIP LOCKED
)
SELECT f.is_open, f.room::integer AS room, f.settled, f.paused_for, f.waits, f.tokens, f.rate_for,
       f.is_held IS TRUE AS is_held,
       coalesce((SELECT set_config('dbosflow.claims_of', l.name, true) FROM locked l) = f.name, false) AS locked
FROM found f;

-- name: claim (from a queue whose row this transaction holds: as many as it has room for)
-- But for that, the same as `claim` in workflow.sql, which gives the reasons.
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
), free AS MATERIALIZED (
    SELECT w.id, w.epoch
    FROM dbosflow.workflow w
    WHERE w.status = 'queued' AND w.queue = :queue::text AND w.name = ANY(:names::text[])
      AND w.recoveries < 3 AND NOT EXISTS (SELECT FROM suspect)
    ORDER BY w.queue, w.priority, w.created_at, w.id
    LIMIT coalesce((SELECT least(most, tokens) FROM room), 0)
    FOR UPDATE SKIP LOCKED
), begun AS MATERIALIZED ( -- where the rate lets fewer begin than there is room for: of the first ones, what began before
    SELECT w.id
    FROM dbosflow.workflow w
    WHERE w.id = ANY(ARRAY(
              SELECT f.id FROM (
                  SELECT w.id, w.epoch FROM dbosflow.workflow w
                  WHERE w.status = 'queued' AND w.queue = :queue::text AND w.name = ANY(:names::text[])
                    AND w.recoveries < 3 AND NOT EXISTS (SELECT FROM suspect)
                  ORDER BY w.queue, w.priority, w.created_at, w.id
                  LIMIT coalesce((SELECT most FROM room WHERE tokens < most), 0)
              ) AS f WHERE f.epoch > 0))
      AND w.id <> ALL(ARRAY(SELECT id FROM free)) AND w.status IS NOT DISTINCT FROM 'queued'
    LIMIT coalesce((SELECT most FROM room), 0) - (SELECT count(*) FROM free)
    FOR UPDATE SKIP LOCKED
), paid AS (
    UPDATE dbosflow.queue q
    SET rate_next_at = room.even_at + (SELECT count(*) FROM free WHERE epoch = 0) * room.share
    FROM room
    WHERE q.name = :name::text AND room.tokens IS NOT NULL AND EXISTS (SELECT FROM free WHERE epoch = 0)
)
UPDATE dbosflow.workflow w
SET status = 'running', worker_id = lease.id, epoch = w.epoch + 1, started_at = coalesce(w.started_at, now()), slot = :name::text,
    timed_out = CASE WHEN w.deadline_at <= now() THEN w.cancel_requested_at IS NULL OR w.timed_out ELSE w.timed_out END,
    cancel_requested_at = CASE WHEN w.deadline_at <= now() THEN coalesce(w.cancel_requested_at, now())
                               ELSE w.cancel_requested_at END
FROM unnest(ARRAY(SELECT id FROM free) || ARRAY(SELECT id FROM suspect) || ARRAY(SELECT id FROM begun)) AS taken (id), lease
WHERE w.id = taken.id
RETURNING w.id, w.name, w.queue, w.epoch, w.input::text AS input, to_json(w.input_streams)::text AS input_streams,
          w.recoveries, CASE WHEN w.cancel_requested_at IS NOT NULL THEN json_build_array(w.cancel_reason, w.timed_out)::text END AS request,
          w.parent_id IS NOT NULL AS is_child,
          extract(epoch FROM w.deadline_at - now())::double precision AS remaining;

-- name: exists (whether the queue has limits)
SELECT EXISTS (SELECT FROM dbosflow.queue WHERE name = :name::text) AS is_limited;

-- name: apply (sets what is among the `changed`; a claim that is under way is waited for)
INSERT INTO dbosflow.queue
    (name, concurrency, worker_concurrency, paused, pause_ends_at, rate_count, rate_period, rate_burst)
VALUES (:name::text, :concurrency::integer, :worker_concurrency::integer, coalesce(:paused::boolean, false),
        coalesce(to_timestamp(:pause_ends_at::double precision), now() + :pause_for::double precision * interval '1 second'),
        :rate_count::integer, :rate_period::double precision, :rate_burst::integer)
ON CONFLICT (name) DO UPDATE
SET concurrency = CASE WHEN 'concurrency' = ANY(:changed::text[]) THEN excluded.concurrency ELSE queue.concurrency END,
    worker_concurrency = CASE WHEN 'worker_concurrency' = ANY(:changed::text[]) THEN excluded.worker_concurrency
                              ELSE queue.worker_concurrency END,
    paused = CASE WHEN 'paused' = ANY(:changed::text[]) THEN excluded.paused ELSE queue.paused END,
    pause_ends_at = CASE WHEN 'paused' = ANY(:changed::text[]) THEN excluded.pause_ends_at ELSE queue.pause_ends_at END,
    rate_count = CASE WHEN 'rate_count' = ANY(:changed::text[]) THEN excluded.rate_count ELSE queue.rate_count END,
    rate_period = CASE WHEN 'rate_count' = ANY(:changed::text[]) THEN excluded.rate_period ELSE queue.rate_period END,
    rate_burst = CASE WHEN 'rate_count' = ANY(:changed::text[]) THEN excluded.rate_burst ELSE queue.rate_burst END,
    rate_next_at = CASE -- another rate begins with what its burst has left at least
        WHEN NOT 'rate_count' = ANY(:changed::text[]) OR queue.rate_count IS NULL
             OR (excluded.rate_count, excluded.rate_period, excluded.rate_burst)
                 IS NOT DISTINCT FROM (queue.rate_count, queue.rate_period, queue.rate_burst)
        THEN queue.rate_next_at
        ELSE now() + excluded.rate_burst * excluded.rate_period / excluded.rate_count * interval '1 second' END,
    updated_at = now()
RETURNING settled;

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
       q.rate_count, q.rate_period, q.rate_burst,
       coalesce(q.paused AND coalesce(q.pause_ends_at > now(), true), false) AS paused,
       CASE WHEN q.paused AND q.pause_ends_at > now() THEN q.pause_ends_at END AS paused_until,
       coalesce(work.waiting, 0) AS waiting, coalesce(work.running, 0) AS running, work.oldest,
       extract(epoch FROM now() - work.oldest)::double precision AS oldest_age
FROM dbosflow.queue q
FULL JOIN work ON work.name = q.name
WHERE coalesce(q.name, work.name) <> '' AND (:name::text IS NULL OR coalesce(q.name, work.name) = :name::text)
ORDER BY 1;
