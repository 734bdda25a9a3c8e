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

-- name: part_partition_rate (what the rate of partitions of the queue in `p` allows `k.key` now: as above)
-- A partition that has no row has all of its burst. Index: partition_rate_pkey, only if there is such a rate.
(
    SELECT r.even_at, r.is_put_back,
           CASE WHEN p.partition_unit IS NOT NULL THEN greatest(floor(
               p.partition_burst - extract(epoch FROM r.even_at - statement_timestamp())::double precision / p.partition_unit),
               0)::integer END AS tokens
    FROM (
        SELECT greatest(o.next_at - greatest(o.moved_at - statement_timestamp(), interval '0'), statement_timestamp()) AS even_at,
               coalesce(o.moved_at > statement_timestamp(), false) AS is_put_back
        FROM (SELECT) AS always
        LEFT JOIN LATERAL (
            SELECT o.next_at, o.moved_at FROM dbosflow.partition_rate o
            WHERE p.partition_unit IS NOT NULL AND o.queue = p.name AND o.key = k.key COLLATE "default"
            LIMIT 1 -- so that the first condition is a condition of looking
        ) AS o ON true
    ) AS r
)

-- name: part_open (whether the queue `q`, with its `rate`, is not paused)
(q.settled AND NOT (q.paused AND coalesce(q.pause_ends_at > now(), true)) AND NOT rate.is_paused)

-- name: part_probe (the partition `k.key` of the queue in `p`: which of the names wait in it, the units that the first needs to
-- begin, and how many more of it may run; null: none, since it has begun before, or there is no rate; and no limit)
-- By leaps over the names that the worker does not know, as in claim.sql. Suspects that it does not take are
-- passed over, but none that it does not know. A partition that is short of units of its own is passed over, like a full one:
-- `short_for` is the seconds until it has them. It is not where the clock was put back, so that a claim moves it by nothing.
-- Indexes: workflow_queued; workflow_suspected; workflow_slot; partition_rate_pkey.
(
    SELECT g.names, g.names IS NOT NULL AS waits, g.room, g.tokens, g.even_at, g.is_put_back,
           g.is_open AND (g.has_begun OR g.has_units OR g.is_put_back) AS may,
           CASE WHEN g.is_open AND NOT (g.has_begun OR g.has_units OR g.is_put_back)
                THEN extract(epoch FROM g.even_at - statement_timestamp())::double precision
                     - (p.partition_burst - g.own_units) * p.partition_unit END AS short_for,
           CASE WHEN g.has_begun OR p.tokens IS NULL THEN NULL ELSE g.units END AS needs
    FROM (
        SELECT f.*, f.names IS NOT NULL AND coalesce(f.room > 0, true) AS is_open,
               coalesce(f.own_units <= f.tokens, true) AS has_units,
               CASE WHEN f.epoch > 0 THEN true
                    WHEN f.units > p.tokens OR f.own_units > f.tokens THEN :suspects::boolean AND coalesce((
                        SELECT true FROM unnest(f.names) AS n (name), dbosflow.workflow w -- these have begun before
                        WHERE w.status = 'queued' AND w.recoveries >= 3 AND w.name = n.name
                          AND w.queue = (:queue::text || CASE WHEN k.key = '' THEN '' ELSE chr(31) || k.key END) COLLATE "default"
                        LIMIT 1), false)
                    ELSE false END AS has_begun
        FROM (
            SELECT first.names, first.epoch, least(coalesce(first.units, 1), p.burst) AS units,
                   least(coalesce(first.units, 1), p.partition_burst) AS own_units, own.tokens, own.even_at, own.is_put_back,
                   CASE WHEN p.partition_concurrency IS NOT NULL THEN p.partition_concurrency - (
                       SELECT count(*) FROM dbosflow.workflow r
                       WHERE r.status = 'running' AND r.slot IS NOT NULL AND r.slot = p.name
                         AND split_part(r.queue, chr(31), 2) = k.key COLLATE "default") END AS room
            FROM (
                WITH RECURSIVE leap AS (
                    SELECT ARRAY(SELECT n FROM unnest(:names::text[]) AS n ORDER BY n) AS names, '' AS next, NULL::text AS name,
                           NULL::integer AS priority, NULL::timestamptz AS created_at, NULL::text AS id,
                           NULL::integer AS epoch, NULL::integer AS units
                    UNION ALL
                    SELECT l.names, l.names[width_bucket(f.name, l.names) + 1], f.*
                    FROM leap l
                    CROSS JOIN LATERAL (
                        SELECT w.name, w.priority, w.created_at, w.id, w.epoch, w.units
                        FROM dbosflow.workflow w
                        WHERE w.status = 'queued' AND w.name >= l.next
                          AND w.queue = (:queue::text || CASE WHEN k.key = '' THEN '' ELSE chr(31) || k.key END) COLLATE "default"
                          AND (w.recoveries < 3 OR :suspects::boolean OR NOT w.name = ANY(:names::text[]))
                        ORDER BY w.queue, w.name, w.priority, w.created_at, w.id
                        LIMIT 1
                    ) AS f
                )
                SELECT array_agg(l.name) AS names, (array_agg(l.epoch ORDER BY l.priority, l.created_at, l.id))[1] AS epoch,
                       (array_agg(l.units ORDER BY l.priority, l.created_at, l.id))[1] AS units
                FROM leap l
                WHERE l.name = ANY(:names::text[])
            ) AS first
            CROSS JOIN LATERAL :part_partition_rate AS own
            OFFSET 0
        ) AS f
        OFFSET 0
    ) AS g
)

-- name: part_place (where the ring of partitions is entered: behind the one that was served last, or in it)
-- With a lap that is not negative: behind `after_key`, and until `until_key`, where a claimer has found nothing before.
SELECT q.*, CASE WHEN :after_lap::integer < 0 THEN coalesce(q.served, '') ELSE :after_key::text END COLLATE "C" AS key,
       greatest(:after_lap::integer, 0) AS lap,
       CASE WHEN :after_lap::integer < 0 THEN coalesce(q.served, '') ELSE :until_key::text END COLLATE "C" AS until,
       :after_lap::integer < 0 AND q.served IS NOT NULL AND q.turn < coalesce((q.weights ->> q.served)::integer, 1) AS resumes

-- name: part_ring (a recursive query `ring`: the partitions from the place on, in the order of their keys, until a number of
-- them have what may run now, or 64 others were looked at, or all)
-- What has no partition key is in the ring, too, under the empty key. `held`: the units that one is short of which is before
-- others; behind it nothing begins, only what has begun before goes on. Index: workflow_partitioned, a probe for each.
(
    SELECT p.lap, p.key, 0 AS number, p.resumes, NULL::text[] AS names, false AS waits, false AS may, NULL::bigint AS room,
           NULL::integer AS held, false AS is_ready, 0 AS found, NULL::integer AS tokens, NULL::timestamptz AS even_at,
           NULL::boolean AS is_put_back, NULL::double precision AS short_for
    FROM place p
    UNION ALL
    SELECT k.lap, k.key, r.number + 1, false, one.names, one.waits, one.may, one.room, now.held, now.is_ready,
           r.found + now.is_ready::integer, one.tokens, one.even_at, one.is_put_back, one.short_for
    FROM ring r
    CROSS JOIN place p
    CROSS JOIN LATERAL (
        SELECT CASE WHEN n.key IS NULL THEN 1 ELSE r.lap END AS lap, coalesce(n.key, '') COLLATE "C" AS key
        FROM (
            SELECT CASE WHEN r.resumes THEN r.key ELSE (
                SELECT split_part(w.queue, chr(31), 2) FROM dbosflow.workflow w
                WHERE w.status IS NOT DISTINCT FROM 'queued' AND strpos(w.queue, chr(31)) > 0
                  AND split_part(w.queue, chr(31), 1) COLLATE "C" = :queue::text
                  AND split_part(w.queue, chr(31), 2) COLLATE "C" > r.key
                ORDER BY split_part(w.queue, chr(31), 1) COLLATE "C", split_part(w.queue, chr(31), 2) COLLATE "C"
                LIMIT 1) COLLATE "C" END AS key
            OFFSET 0
        ) AS n
        WHERE CASE WHEN r.lap = 0 THEN n.key IS NOT NULL OR NOT (p.until = '' AND p.resumes)
                   ELSE n.key < p.until OR n.key = p.until AND NOT p.resumes END
    ) AS k
    CROSS JOIN LATERAL :part_probe AS one
    CROSS JOIN LATERAL (
        SELECT coalesce(r.held, CASE WHEN one.may AND one.needs > p.tokens THEN one.needs END) AS held,
               one.may AND (one.needs IS NULL OR r.held IS NULL AND one.needs <= p.tokens) AS is_ready
    ) AS now
    WHERE r.number < 64 + r.found AND r.found < p.goal
)

-- name: lock (the turn of one claimer, until its transaction ends; and why there is none)
-- Who has nothing to take, or no room for it, as far as can be seen, takes no lock, so that a full queue costs no commit.
-- Whoever makes room, or enqueues, does so before it gives notice; so who is notified sees it here. Of the partitions it
-- looks at those in the ring until one has what may run, and at those of the hints. Locks: the queue's row FOR NO KEY UPDATE,
-- then that of its bucket; who finds one locked is told so. The setting is the transaction's own: it tells the next statement.
WITH RECURSIVE found AS MATERIALIZED (
    SELECT q.name, :part_open AS is_open, :part_room AS room, q.settled, q.partition_concurrency, q.weights, q.served, q.turn,
           extract(epoch FROM greatest(CASE WHEN q.paused AND q.pause_ends_at > now() THEN q.pause_ends_at END,
                                       rate.pause_ends_at) - now())::double precision AS paused_for,
           rate.tokens, rate.burst, rate.unit, rate.is_put_back, 1 AS goal,
           q.partition_rate_period / q.partition_rate_count AS partition_unit, q.partition_rate_burst AS partition_burst,
           extract(epoch FROM rate.even_at - statement_timestamp())::double precision AS even_in
    FROM dbosflow.queue q
    CROSS JOIN LATERAL :part_rate AS rate
    WHERE q.name = :name::text
), place AS MATERIALIZED (
    :part_place FROM found q
), ring AS :part_ring, last AS MATERIALIZED (
    SELECT r.lap, r.key, r.held, r.number < 64 AND r.found < 1 AS is_round, r.found < 1 AS is_passed FROM ring r ORDER BY r.number DESC LIMIT 1
), hinted AS MATERIALIZED (
    SELECT k.key, one.*, one.may AND (one.needs IS NULL OR l.held IS NULL AND one.needs <= p.tokens) AS is_ready,
           coalesce(l.held, CASE WHEN one.may AND one.needs > p.tokens THEN one.needs END) AS held
    FROM place p
    CROSS JOIN last l
    CROSS JOIN unnest(:hinted::text[]) AS k (key)
    CROSS JOIN LATERAL :part_probe AS one
), waiting AS ( -- the names under which work of the queue waits, also such that only workers of other versions take
    SELECT :name::text AS name
    UNION ALL
    SELECT v.name FROM (
        SELECT DISTINCT 'dbosflow/pinned/' || k.version_name || '/' || :name::text AS name FROM dbosflow.worker k
        WHERE k.state = 'live' AND k.version_name IS NOT NULL) AS v
), seen AS MATERIALIZED (
    SELECT bool_or(s.waits) AS waits, bool_or(s.may) AS may, max(s.held) AS held,
           bool_or(s.is_ready OR s.may AND f.is_put_back IS TRUE) AS is_ready,
           bool_or(s.waits AND coalesce(s.room <= 0, false)) AS is_crowded,
           json_object_agg(s.key, s.short_for) FILTER (WHERE s.short_for IS NOT NULL) AS short_for
    FROM (SELECT key, waits, may, room, is_ready, held, short_for FROM ring
          UNION ALL
          SELECT key, waits, may, room, is_ready, held, short_for FROM hinted) AS s
    CROSS JOIN found f
), locked AS MATERIALIZED (
    SELECT q.name, q.bucket FROM dbosflow.queue q
    WHERE q.name = :name::text
      AND EXISTS (SELECT FROM found f, seen WHERE f.is_open AND seen.is_ready AND coalesce(f.room > 0, true))
    FOR NO KEY UPDATE SKIP LOCKED
), bucket AS MATERIALIZED (
    SELECT b.name FROM dbosflow.bucket b WHERE b.name = (SELECT l.bucket FROM locked l)
    FOR NO KEY UPDATE SKIP LOCKED
)
SELECT f.is_open, f.room::integer AS room, f.settled, f.paused_for, seen.waits, f.tokens,
       f.even_in - (f.burst - seen.held) * f.unit AS rate_for,
       seen.may AND NOT seen.is_ready AS is_held,
       coalesce((SELECT set_config('dbosflow.claims_of', l.name, true) FROM locked l
                 WHERE l.bucket IS NULL OR EXISTS (SELECT FROM bucket)) = f.name, false) AS locked,
       seen.is_ready, seen.is_crowded, last.is_round, last.lap, last.key::text AS key, place.until::text AS until,
       (SELECT json_object_agg(h.key, h.room) FROM hinted h
        WHERE h.room > 0 AND h.short_for IS NULL AND (
            SELECT true FROM waiting q -- not EXISTS, which would hash all that waits
            CROSS JOIN LATERAL (
                SELECT FROM dbosflow.workflow w
                WHERE w.status = 'queued'
                  AND w.queue = (q.name || CASE WHEN h.key = '' THEN '' ELSE chr(31) || h.key END) COLLATE "default"
                ORDER BY w.queue, w.name -- not by a scan of the table, where much waits
                LIMIT 1) AS w
            LIMIT 1))::text AS open_keys,
       last.is_passed, CASE WHEN f.partition_unit IS NOT NULL THEN coalesce(seen.short_for::text, '{}') END AS short_for
FROM found f
CROSS JOIN seen
CROSS JOIN last
CROSS JOIN place;

-- name: claim (from a queue whose row this transaction holds: as many as it has room for, and its rate has units for)
-- But for that, the same as claim.sql, which gives the reasons. Partitions are served in turn, by weighted round
-- robin: in a turn as many of one as it has weight, in the order of their priority. Who was served last is in the queue's
-- row. Hinted partitions come after all others, out of turn. Those that begin are taken in strict order: one of more units
-- than there are waits for them, and so do all behind it; one of more than the burst waits for all of that.
WITH RECURSIVE lease AS MATERIALIZED (
    SELECT id FROM dbosflow.worker
    WHERE id = :worker_id::uuid AND state = 'live' AND suspect IS NULL
      AND current_setting('dbosflow.claims_of', true) = :name::text
    FOR KEY SHARE
), room AS MATERIALIZED (
    SELECT greatest(least(:limit::integer, :part_room), 0)::integer AS goal, rate.*,
           q.name, q.partition_concurrency, q.weights, q.served, q.turn,
           q.partition_rate_period / q.partition_rate_count AS partition_unit, q.partition_rate_burst AS partition_burst
    FROM lease
    CROSS JOIN dbosflow.queue q
    CROSS JOIN LATERAL :part_rate AS rate
    WHERE q.name = :name::text AND :part_open
), place AS MATERIALIZED (
    :part_place FROM room q
), ring AS :part_ring, partition AS MATERIALIZED (
    SELECT s.key, s.number, s.names, s.room, s.weight, s.tokens, s.even_at, s.is_put_back,
           CASE WHEN s.number = 1 AND p.resumes THEN s.weight - p.turn ELSE s.weight END AS credit,
           (p.goal + sum(s.weight) OVER () - 1) / sum(s.weight) OVER () AS rounds
    FROM place p
    CROSS JOIN LATERAL (
        SELECT r.key, r.number, r.names, r.room, coalesce((p.weights ->> r.key)::integer, 1) AS weight, r.tokens, r.even_at,
               r.is_put_back
        FROM ring r WHERE r.may
        UNION ALL
        SELECT k.key, 1000, one.names, one.room, 1, one.tokens, one.even_at, one.is_put_back
        FROM (SELECT DISTINCT h.key COLLATE "C" AS key FROM unnest(:hinted::text[]) AS h (key)
              WHERE h.key NOT IN (SELECT r.key FROM ring r WHERE r.number > 0)) AS k
        CROSS JOIN LATERAL :part_probe AS one
        WHERE one.may
    ) AS s
), suspected AS MATERIALIZED (
    SELECT w.id
    FROM partition p
    CROSS JOIN LATERAL (
        SELECT w.id
        FROM unnest(p.names) AS n (name)
        CROSS JOIN LATERAL (
            SELECT w.id, w.recoveries, w.created_at FROM dbosflow.workflow w
            WHERE w.status = 'queued' AND w.recoveries >= 3 AND w.name = n.name
              AND w.queue = (:queue::text || CASE WHEN p.key = '' THEN '' ELSE chr(31) || p.key END) COLLATE "default"
            ORDER BY w.queue, w.name, w.recoveries, w.created_at, w.id
            LIMIT CASE WHEN :suspects::boolean THEN 1 ELSE 0 END
        ) AS w
        ORDER BY w.recoveries, w.created_at, w.id
        LIMIT 1
    ) AS w
    ORDER BY p.number
    LIMIT coalesce((SELECT least(goal, 1) FROM room), 0)
), suspect AS MATERIALIZED (
    SELECT w.id
    FROM dbosflow.workflow w
    WHERE w.id = ANY(ARRAY(SELECT id FROM suspected)) AND w.status IS NOT DISTINCT FROM 'queued'
      AND split_part(w.queue, chr(31), 1) = :queue::text
    FOR NO KEY UPDATE SKIP LOCKED
), accused AS (
    UPDATE dbosflow.worker k SET suspect = s.id
    FROM suspect s
    WHERE k.id = :worker_id::uuid
), candidate AS MATERIALIZED ( -- of each partition the first ones, with the round in which they have their turn
    SELECT p.key, p.number, p.credit, p.weight, w.id, w.queue, w.epoch, w.units, w.k,
           greatest(w.k - p.credit + p.weight - 1, 0) / p.weight AS round
    FROM partition p
    CROSS JOIN room
    CROSS JOIN LATERAL (
        SELECT f.id, f.queue, f.epoch, f.units, row_number() OVER (ORDER BY f.priority, f.created_at, f.id) AS k
        FROM (
            SELECT o.*, sum(CASE WHEN o.epoch = 0 THEN least(coalesce(o.units, 1), room.partition_burst) ELSE 0 END)
                            OVER (ORDER BY o.priority, o.created_at, o.id) AS needs
            FROM (
                SELECT w.*
                FROM unnest(p.names) AS n (name)
                CROSS JOIN LATERAL (
                    SELECT w.id, w.queue, w.epoch, w.units, w.priority, w.created_at
                    FROM dbosflow.workflow w
                    WHERE w.status = 'queued' AND w.name = n.name
                      AND w.queue = (:queue::text || CASE WHEN p.key = '' THEN '' ELSE chr(31) || p.key END) COLLATE "default"
                      AND w.recoveries < 3 AND NOT EXISTS (SELECT FROM suspect)
                    ORDER BY w.queue, w.name, w.priority, w.created_at, w.id
                    LIMIT least(p.room, room.goal, p.weight * p.rounds)
                ) AS w
                ORDER BY w.priority, w.created_at, w.id
                LIMIT least(p.room, room.goal, p.weight * p.rounds)
            ) AS o
        ) AS f
        WHERE f.epoch > 0 OR coalesce(f.needs <= p.tokens, true)
    ) AS w
), picked AS MATERIALIZED (
    SELECT a.*
    FROM (
        SELECT o.*, row_number() OVER (ORDER BY o.round, o.number, o.key, o.k) AS place
        FROM (
            SELECT c.*, sum(CASE WHEN c.epoch = 0 THEN least(coalesce(c.units, 1), room.burst) ELSE 0 END)
                            OVER (ORDER BY c.round, c.number, c.key, c.k) AS needs
            FROM candidate c CROSS JOIN room
        ) AS o
        CROSS JOIN room
        WHERE o.epoch > 0 OR coalesce(o.needs <= room.tokens, true)
    ) AS a
    CROSS JOIN room
    WHERE a.place <= room.goal
), free AS MATERIALIZED (
    SELECT w.id, w.epoch, w.units, split_part(p.queue, chr(31), 2) COLLATE "C" AS key
    FROM unnest(ARRAY(SELECT id FROM picked ORDER BY place), ARRAY(SELECT queue FROM picked ORDER BY place)) AS p (id, queue)
    JOIN dbosflow.workflow w ON w.id = p.id
    WHERE w.status IS NOT DISTINCT FROM 'queued' AND w.queue IS NOT DISTINCT FROM p.queue
    FOR NO KEY UPDATE OF w SKIP LOCKED
), served AS MATERIALIZED (
    SELECT p.key, CASE WHEN p.k <= p.credit THEN p.weight - p.credit + p.k
                       ELSE (p.k - p.credit - 1) % p.weight + 1 END::integer AS turn
    FROM picked p
    CROSS JOIN room
    WHERE p.number < 1000 AND p.id = ANY(ARRAY(SELECT id FROM free)) -- a queue without partitions is not written
      AND (p.key <> '' OR room.served <> '' OR EXISTS (SELECT FROM picked o WHERE o.key <> ''))
    ORDER BY p.place DESC
    LIMIT 1
), paid AS MATERIALIZED (
    SELECT room.bucket, room.even_at + least(coalesce(begins.units, 0) * room.unit, 3e9) * interval '1 second' AS next_at
    FROM room
    CROSS JOIN (SELECT sum(coalesce(units, 1)) AS units FROM free WHERE epoch = 0) AS begins
    WHERE room.tokens IS NOT NULL AND (begins.units IS NOT NULL OR room.is_put_back)
), moved AS (
    UPDATE dbosflow.queue q
    SET rate_next_at = coalesce(paid.next_at, q.rate_next_at),
        rate_moved_at = CASE WHEN paid.next_at IS NULL THEN q.rate_moved_at ELSE statement_timestamp() END,
        served = coalesce(served.key, q.served), turn = coalesce(served.turn, q.turn)
    FROM (SELECT) AS always
    LEFT JOIN served ON true
    LEFT JOIN paid ON paid.bucket IS NULL
    WHERE q.name = :name::text AND (served.key IS NOT NULL OR paid.next_at IS NOT NULL)
), paid_by_bucket AS (
    UPDATE dbosflow.bucket b SET rate_next_at = paid.next_at, rate_moved_at = statement_timestamp()
    FROM paid
    WHERE b.name = paid.bucket
), paid_by_partition AS (
    INSERT INTO dbosflow.partition_rate AS r (queue, key, next_at, moved_at)
    SELECT room.name, p.key,
           p.even_at + least(coalesce(begins.units, 0) * room.partition_unit, 3e9) * interval '1 second', statement_timestamp()
    FROM room
    CROSS JOIN partition p
    LEFT JOIN (SELECT key, sum(coalesce(units, 1)) AS units FROM free WHERE epoch = 0 GROUP BY key) AS begins ON begins.key = p.key
    WHERE room.partition_unit IS NOT NULL AND (begins.units IS NOT NULL OR p.is_put_back)
    ON CONFLICT (queue, key) DO UPDATE SET next_at = excluded.next_at, moved_at = excluded.moved_at
)
UPDATE dbosflow.workflow w
SET status = 'running', worker_id = lease.id, epoch = w.epoch + 1, slot = :name::text,
    started_at = coalesce(w.started_at, statement_timestamp()), -- by which its rate has let it begin
    charged = CASE WHEN w.epoch = 0 AND room.tokens IS NOT NULL THEN coalesce(room.bucket, '') ELSE w.charged END,
    charged_partition = CASE WHEN w.epoch = 0 AND room.partition_unit IS NOT NULL THEN true ELSE w.charged_partition END,
    timed_out = CASE WHEN w.deadline_at <= now() THEN w.cancel_requested_at IS NULL OR w.timed_out ELSE w.timed_out END,
    cancel_requested_at = CASE WHEN w.deadline_at <= now() THEN coalesce(w.cancel_requested_at, now())
                               ELSE w.cancel_requested_at END
FROM unnest(ARRAY(SELECT id FROM free) || ARRAY(SELECT id FROM suspect)) AS taken (id), lease, room
WHERE w.id = taken.id
RETURNING w.id, w.name, w.queue, w.epoch, w.input::text AS input, to_json(w.input_streams)::text AS input_streams,
          w.recoveries, CASE WHEN w.cancel_requested_at IS NOT NULL THEN json_build_array(w.cancel_reason, w.timed_out)::text END AS request,
          w.parent_id IS NOT NULL AS is_child,
          extract(epoch FROM w.deadline_at - now())::double precision AS remaining;

-- name: exists (whether the queue has a row; and whether it needs one, since partitions of it wait; index: workflow_partitioned)
SELECT EXISTS (SELECT FROM dbosflow.queue WHERE name = :name::text) AS is_limited,
       EXISTS (SELECT FROM dbosflow.workflow w
               WHERE w.status IS NOT DISTINCT FROM 'queued' AND strpos(w.queue, chr(31)) > 0
                 AND split_part(w.queue, chr(31), 1) COLLATE "C" = :queue::text) AS is_partitioned;
