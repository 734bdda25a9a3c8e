-- Forks: a fork of a workflow is a copy of what was durable when a turn began, under another id. A worker takes it over as it
-- would have taken over the workflow after a crash at that point. All records of a turn are written by one statement, so the rows of
-- the turns before it are what a crash before that statement would have left.

-- name: place (the turn in which an operation went on record, by the keys that its records may have; and the last turn)
-- The last turn is that before the delivery of a cancel, or before the compensations: a fork is not cancelled. A step that has only failed so far goes on after the last turn. Index: the primary key of step.
SELECT w.status,
       (SELECT coalesce(max(s.turn), -1) FROM dbosflow.step s
        WHERE s.workflow_id = :workflow_id AND s.turn < coalesce((
            SELECT min(c.turn) FROM dbosflow.step c
            WHERE c.workflow_id = :workflow_id AND c.kind IN ('cancelled', 'compensating')), 2147483647)) AS last,
       (SELECT min(s.turn) FROM dbosflow.step s WHERE s.workflow_id = w.id AND s.key = ANY(:keys)) AS turn,
       (SELECT s.kind FROM dbosflow.step s WHERE s.workflow_id = w.id AND s.key = :step_key::text) AS kind,
       EXISTS (SELECT FROM dbosflow.step s WHERE s.workflow_id = w.id AND s.kind = 'attempt'
                 AND left(s.key, -length(s.attempt) - 1) = :step_key::text) AS attempted
FROM dbosflow.workflow w
WHERE w.id = :workflow_id;

-- name: beside (the operations that went on record in a turn)
SELECT s.key, s.kind FROM dbosflow.step s WHERE s.workflow_id = :workflow_id AND s.turn = :turn ORDER BY s.seq;

-- name: fork (runs after retention.sql's `hold`, so that neither a compaction nor a removal is under way)
-- One statement, so that all rows are of one snapshot: the owner may go on writing, and streams may be trimmed meanwhile.
-- The epoch is that of the workflow, because attempts are named by epoch, and epoch 1 loads no history.
-- Not copied: the parent, a cancel request, and the frames with which the end closed the streams. These have the time of the
-- end; what the workflow itself closed at that time, the replay closes again. So it is with rollbacks by the end, which stand
-- behind the last value: what they cover is undecided again, as after a crash, unless a record decides it.
-- What was written from outside is copied whole, with what was trimmed of it. Only a cancel closes streams from outside as
-- cancelled, and only a deadline before the first run closes inputs as failed; an error that answers a token has a producer.
-- `anew`: the failed attempts of steps without an outcome do not count; those of `step_key` never do.
-- With `output`, what `step_key` has written is rolled back, under the name of an attempt that never ran (`0.0`); and what its
-- workflow had decided or found in the same turn before it is copied, too.
-- The fork has as much time as the workflow had, whether that was given as a duration or as a moment.
-- Nothing is written if that was none; if the turn is one of an earlier iteration, whose records are removed; or if a stream
-- was trimmed behind it, or holds values of older code, which have no turn.
WITH original AS MATERIALIZED (
    SELECT w.id, w.name, w.status, w.queue, w.priority, w.input, w.input_streams, w.epoch, w.deadline_at - w.created_at AS allowed,
           w.ended_at, w.max_recoveries, w.iteration, w.units,
           coalesce(:turn::integer <= (SELECT c.turn FROM dbosflow.step c
                                       WHERE c.workflow_id = w.id AND c.key = '~' || w.iteration), false) AS is_earlier,
           :turn::integer > coalesce((SELECT max(s.turn) FROM dbosflow.step s WHERE s.workflow_id = w.id), -1) AS whole
    FROM dbosflow.workflow w
    WHERE w.id = :workflow_id
), outcome AS MATERIALIZED (
    SELECT s.key, s.kind
    FROM dbosflow.step s
    WHERE s.workflow_id = :workflow_id AND s.turn < :turn::integer AND s.kind IN ('step', 'transaction', 'given_up', 'for_each')
), record AS MATERIALIZED (
    SELECT s.key, row_number() OVER (ORDER BY s.seq) - 1 AS seq
    FROM dbosflow.step s
    LEFT JOIN outcome ON outcome.key = left(s.key, -length(s.attempt) - 1)
         AND outcome.kind IN ('step', 'transaction')
    WHERE s.workflow_id = :workflow_id
      AND (s.turn < :turn::integer
           OR s.turn = :turn::integer AND :output::text IS NOT NULL AND s.kind = ANY(:found::text[]) AND s.seq < (
               SELECT k.seq FROM dbosflow.step k WHERE k.workflow_id = s.workflow_id AND k.key = :step_key::text))
      AND NOT (s.kind = 'attempt' AND ((:anew::boolean AND outcome.key IS NULL)
                                       OR left(s.key, -length(s.attempt) - 1) = :step_key::text) IS TRUE)
), closing AS MATERIALIZED (
    SELECT b.key, b."offset", b.kind, b.producer, left(b.producer, -length(b.attempt) - 1) AS step_key
    FROM dbosflow.stream_block b
    JOIN original o ON o.ended_at = b.created_at
    WHERE b.workflow_id = :workflow_id AND b.kind <> 'values' AND b.epoch > 0
      AND NOT EXISTS (
          SELECT FROM dbosflow.stream_block v
          WHERE v.workflow_id = b.workflow_id AND v.key = b.key AND v."offset" > b."offset" AND v.kind = 'values')
), undecided AS MATERIALIZED (
    SELECT c.key, min(c."offset") AS "offset"
    FROM closing c
    WHERE c.kind = 'rollback' AND NOT EXISTS (
        SELECT FROM outcome r
        WHERE r.key IN (c.step_key, c.step_key || '/given-up', regexp_replace(c.step_key, '/[0-9]+$', ''),
                        regexp_replace(c.step_key, '/[0-9]+$', '') || '/given-up'))
    GROUP BY c.key
), left_out AS MATERIALIZED (
    SELECT c.key, c."offset"
    FROM closing c
    LEFT JOIN undecided u ON u.key = c.key
    WHERE c.kind <> 'rollback' AND c.producer = '' OR c."offset" >= u."offset"
), block AS MATERIALIZED (
    SELECT b.key, b."offset", b.count, b.kind, b.producer, b.attempt, b.turn, b.epoch,
           CASE WHEN b.epoch = 0 THEN b.kind <> 'cancelled' AND (b.kind <> 'error' OR b.producer <> '')
                ELSE (b.turn < :turn::integer OR b.turn IS NULL) AND l.key IS NULL END AS is_kept,
           b.epoch > 0 AND b.turn IS NULL AND l.key IS NULL AS is_unknown,
           :output::text IS NOT NULL AND b.attempt IS NOT NULL AND left(b.producer, -length(b.attempt) - 1) = :step_key::text
               AS is_replaced
    FROM dbosflow.stream_block b
    LEFT JOIN left_out l ON l.key = b.key AND l."offset" = b."offset"
    WHERE b.workflow_id = :workflow_id
), truncated AS MATERIALIZED (
    SELECT b.key, min(b."offset") AS first
    FROM block b
    GROUP BY b.key
    HAVING min(b."offset") > 0 AND (
        NOT (array_agg(b.is_kept ORDER BY b."offset"))[1]
        OR NOT (SELECT o.whole FROM original o) AND EXISTS (
            SELECT FROM dbosflow.stream_trim t
            WHERE t.workflow_id = :workflow_id AND t.key = b.key AND (t.turn < :turn::integer) IS NOT TRUE))
    ORDER BY b.key
    LIMIT 1
), unknown AS MATERIALIZED (
    SELECT b.key FROM block b WHERE b.is_unknown AND NOT (SELECT o.whole FROM original o) ORDER BY b.key LIMIT 1
), made AS (
    INSERT INTO dbosflow.workflow
        (id, name, status, queue, priority, input, input_streams, epoch, deadline_at, forked_from, forked_turn,
         max_recoveries, iteration, units)
    SELECT :fork_id::text, o.name, 'queued', coalesce(:queue::text, o.queue), o.priority, o.input, o.input_streams, o.epoch,
           now() + o.allowed, o.id, :turn::integer, o.max_recoveries, o.iteration, o.units
    FROM original o
    WHERE NOT EXISTS (SELECT FROM truncated) AND NOT EXISTS (SELECT FROM unknown)
      AND NOT o.is_earlier AND (o.allowed <= interval '0') IS NOT TRUE
    ON CONFLICT (id) DO NOTHING
    RETURNING id, queue, epoch
), records AS (
    INSERT INTO dbosflow.step
        (workflow_id, key, kind, epoch, seq, turn, attempt, output, error, child_id, wake_at, started_at, recorded_at,
         loop_key, loop_offset, loop_next)
    SELECT made.id, s.key, s.kind, s.epoch, r.seq, s.turn, s.attempt, s.output, s.error, s.child_id, s.wake_at, s.started_at,
           s.recorded_at, s.loop_key, s.loop_offset, s.loop_next
    FROM made
    CROSS JOIN record r
    JOIN dbosflow.step s ON s.workflow_id = :workflow_id AND s.key = r.key
), replaced AS (
    INSERT INTO dbosflow.step
        (workflow_id, key, kind, epoch, seq, turn, attempt, output, started_at, loop_key, loop_offset)
    SELECT made.id, :step_key::text, CASE WHEN s.kind = 'transaction' THEN s.kind ELSE 'step' END, made.epoch, (SELECT count(*) FROM record), :turn::integer, '0.1', :output::json,
           now(), s.loop_key, s.loop_offset
    FROM made
    LEFT JOIN dbosflow.step s ON s.workflow_id = :workflow_id AND s.key = :step_key::text
    WHERE :output::text IS NOT NULL
), blocks AS (
    INSERT INTO dbosflow.stream_block
        (workflow_id, key, "offset", count, kind, values, bytes, producer, producer_seq, attempt, epoch, created_at, checksum,
         turn)
    SELECT made.id, b.key, b."offset", b.count, b.kind, b.values, b.bytes,
           CASE WHEN c.is_replaced AND b.attempt = '*' THEN :step_key::text || '@0.0' ELSE b.producer END, b.producer_seq,
           CASE WHEN c.is_replaced AND b.attempt = '*' THEN '0.0' ELSE b.attempt END, b.epoch, b.created_at, b.checksum, b.turn
    FROM made
    CROSS JOIN block c
    JOIN dbosflow.stream_block b ON b.workflow_id = :workflow_id AND b.key = c.key AND b."offset" = c."offset"
    WHERE c.is_kept
), taken_back AS (
    INSERT INTO dbosflow.stream_block
        (workflow_id, key, "offset", count, kind, values, bytes, producer, producer_seq, attempt, epoch, turn)
    SELECT made.id, r.key, r.tail + row_number() OVER (PARTITION BY r.key ORDER BY r.attempt) - 1, 1, 'rollback', r.ranges,
           octet_length(r.ranges::text), :step_key::text || '@' || r.attempt, 0, r.attempt, made.epoch, :turn::integer
    FROM made
    CROSS JOIN (
        SELECT b.key, CASE b.attempt WHEN '*' THEN '0.0' ELSE b.attempt END AS attempt,
               json_agg(json_build_array(b."offset", b."offset" + b.count) ORDER BY b."offset") AS ranges,
               (SELECT max(t."offset" + t.count) FROM block t WHERE t.key = b.key AND t.is_kept) AS tail
        FROM block b
        WHERE b.is_kept AND b.is_replaced AND b.kind = 'values' AND NOT EXISTS (
            SELECT FROM block r WHERE r.is_kept AND r.key = b.key AND r.kind = 'rollback' AND r.producer = b.producer)
        GROUP BY b.key, b.attempt
    ) AS r
), trims AS (
    INSERT INTO dbosflow.stream_trim (workflow_id, key, producer, count, bytes, "offset", checksum, turn)
    SELECT made.id, t.key, t.producer, t.count, t.bytes, t."offset", t.checksum, t.turn
    FROM made
    JOIN dbosflow.stream_trim t ON t.workflow_id = :workflow_id
), attributes AS (
    INSERT INTO dbosflow.attribute (workflow_id, name, value)
    SELECT made.id, a.name, a.value
    FROM made
    JOIN dbosflow.attribute a ON a.workflow_id = :workflow_id
)
SELECT made.id IS NOT NULL AS made, o.is_earlier, (o.allowed <= interval '0') IS TRUE AS is_late, made.queue, o.queue AS original_queue, t.key AS truncated, t.first, u.key AS unknown
FROM original o
LEFT JOIN made ON true
LEFT JOIN truncated t ON true
LEFT JOIN unknown u ON true;

-- name: children (locks the children that a fork may still wait for, so that none is removed; returns one that was)
-- A child whose result is on record is not asked again, and one that the workflow never waited for may be gone. Indexes: the
-- primary keys.
WITH awaited AS MATERIALIZED (
    SELECT DISTINCT s.child_id AS id
    FROM dbosflow.step s
    WHERE s.workflow_id = :fork_id AND s.kind IN ('child', 'mapped') AND NOT EXISTS (
        SELECT FROM dbosflow.step r
        WHERE r.workflow_id = s.workflow_id AND r.kind IN ('result', 'mapped_result') AND r.child_id = s.child_id)
), held AS MATERIALIZED (
    SELECT w.id FROM dbosflow.workflow w WHERE w.id = ANY(ARRAY(SELECT id FROM awaited)) FOR KEY SHARE
)
SELECT a.id AS missing
FROM awaited a
WHERE NOT EXISTS (SELECT FROM held h WHERE h.id = a.id) AND EXISTS (
    SELECT FROM dbosflow.step r
    WHERE r.workflow_id = :workflow_id AND r.kind IN ('result', 'mapped_result') AND r.child_id = a.id)
ORDER BY a.id
LIMIT 1;

-- name: open_tokens (those of a fork that were not answered in the workflow: their ids name the workflow, and not the fork)
SELECT s.key, s.output::text AS output
FROM dbosflow.step s
WHERE s.workflow_id = :fork_id AND s.kind = 'token' AND s.turn < :turn AND NOT EXISTS (
    SELECT FROM dbosflow.stream_block b WHERE b.workflow_id = s.workflow_id AND b.key = 'dbosflow/token/' || s.key)
ORDER BY s.seq;

-- name: taken (what stands under the id of a fork that was not made)
SELECT w.forked_from, w.forked_turn, w.queue,
       (SELECT s.output::text FROM dbosflow.step s
        WHERE s.workflow_id = w.id AND s.key = :step_key::text AND s.attempt = '0.1') AS output
FROM dbosflow.workflow w
WHERE w.id = :fork_id;

-- name: end (how a workflow has ended, and the last turn, as in `place`)
SELECT w.status, w.error::text AS error, w.timed_out IS TRUE AS timed_out,
       EXISTS (SELECT FROM dbosflow.step s
               WHERE s.workflow_id = :workflow_id AND s.kind = 'compensating') AS compensated,
       (SELECT coalesce(max(s.turn), -1) FROM dbosflow.step s
        WHERE s.workflow_id = :workflow_id AND s.turn < coalesce((
            SELECT min(c.turn) FROM dbosflow.step c
            WHERE c.workflow_id = :workflow_id AND c.kind IN ('cancelled', 'compensating')), 2147483647)) AS last,
       (SELECT c.turn FROM dbosflow.step c WHERE c.workflow_id = w.id AND c.key = '~' || w.iteration) AS continued
FROM dbosflow.workflow w
WHERE w.id = :workflow_id;

-- name: failures (the records with an error, and the last record of all, the newest first; of kinds that deliver an outcome)
SELECT s.key, s.kind, s.turn, s.seq, s.error::text AS error, s.child_id
FROM dbosflow.step s
WHERE s.workflow_id = :workflow_id AND NOT s.kind = ANY(:silent)
  AND (s.error IS NOT NULL OR s.seq = (
      SELECT max(l.seq) FROM dbosflow.step l WHERE l.workflow_id = :workflow_id AND NOT l.kind = ANY(:silent)))
ORDER BY s.seq DESC
LIMIT 1000;

-- name: started (the children that a workflow has on record, how they have ended, and when that went on record)
-- The program learns of those of `map_workflow` when that is over.
SELECT s.key, s.turn, s.child_id, w.status, w.parent_id, w.parent_key,
       (SELECT min(r.turn) FROM dbosflow.step r
        WHERE r.workflow_id = s.workflow_id AND CASE s.kind
            WHEN 'child' THEN r.kind = 'result' AND r.child_id = s.child_id
            ELSE r.kind = 'map' AND r.key = regexp_replace(s.key, '/[0-9]+$', '') END) AS told
FROM dbosflow.step s
LEFT JOIN dbosflow.workflow w ON w.id = s.child_id
WHERE s.workflow_id = :workflow_id AND s.kind IN ('child', 'mapped')
ORDER BY s.turn, s.seq;
