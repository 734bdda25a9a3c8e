-- name: history (all that a replay of these workflows needs: the records, and what each producer has made durable)
-- Scans of the primary keys; the values of the blocks are not read. Uncommitted blocks have an order of their own. Streams
-- are found one by one, with a probe for each: inboxes and answers to tokens, which only outsiders write, are not scanned.
-- For a loop it returns the totals, and only those items that the loop's watermark does not supersede. A child's record
-- has in place of a producer the name and the parent of the workflow under the child's id, if that is not the workflow that
-- it started. For a fork there is a row with the turn from which it goes on by itself, and for a workflow that was continued
-- as new one with its iteration and the arguments of that. Of such a workflow only the records of that iteration count, from
-- the one with which it began on; and of its streams what that iteration has written, behind the places where they ended then,
-- and the ends of those that were closed before.
WITH RECURSIVE iteration AS MATERIALIZED (
    SELECT w.id AS workflow_id, c.key AS path, c.seq, c.output
    FROM dbosflow.workflow w
    JOIN dbosflow.step c ON c.workflow_id = w.id AND c.key = '~' || w.iteration
    WHERE w.id = ANY(:ids) AND w.iteration IS NOT NULL
), loop AS MATERIALIZED (
    SELECT workflow_id, loop_key, coalesce(max(loop_next), 0) AS next, max(seq) AS seq, max(turn) AS turn,
           json_build_object('done', count(*) FILTER (WHERE kind = 'step' AND error IS NULL),
                             'failed', count(*) FILTER (WHERE kind = 'step' AND error IS NOT NULL),
                             'last', max(loop_offset) FILTER (WHERE kind = 'step')) AS totals
    FROM dbosflow.step
    WHERE workflow_id = ANY(:ids) AND loop_key IS NOT NULL
      AND seq >= coalesce((SELECT i.seq FROM iteration i WHERE i.workflow_id = step.workflow_id), 0)
    GROUP BY workflow_id, loop_key
), stream AS (
    SELECT i.workflow_id, first.key
    FROM unnest(:ids::text[]) AS i (workflow_id)
    CROSS JOIN LATERAL (
        SELECT b.key FROM dbosflow.stream_block b WHERE b.workflow_id = i.workflow_id ORDER BY b.key LIMIT 1
    ) AS first
    UNION ALL
    SELECT stream.workflow_id, following.key
    FROM stream
    CROSS JOIN LATERAL (
        SELECT b.key FROM dbosflow.stream_block b
        WHERE b.workflow_id = stream.workflow_id AND b.key > stream.key ORDER BY b.key LIMIT 1
    ) AS following
), own AS MATERIALIZED (
    SELECT s.workflow_id, s.key, i.path, coalesce((i.output -> 'streams' -> s.key ->> 0)::bigint, 0) AS start
    FROM stream s
    LEFT JOIN iteration i ON i.workflow_id = s.workflow_id
    WHERE NOT starts_with(s.key, 'dbosflow/inbox/') AND NOT starts_with(s.key, 'dbosflow/token/')
)
SELECT 'record' AS part, workflow_id, key, kind, seq, turn, attempt, output::text AS output, error::text AS error,
       child_id, extract(epoch FROM wake_at - now())::double precision AS remaining,
       extract(epoch FROM now() - recorded_at)::double precision AS age, epoch,
       CASE WHEN kind IN ('child', 'mapped') THEN (
           SELECT json_build_array(w.name, w.parent_id, w.parent_key)::text FROM dbosflow.workflow w
           WHERE w.id = child_id AND (w.parent_id, w.parent_key) IS DISTINCT FROM (step.workflow_id, step.key)
       ) END AS producer,
       NULL::bigint AS count, NULL::bigint AS bytes, NULL::bigint AS tail, NULL::integer AS checksum
FROM dbosflow.step
WHERE workflow_id = ANY(:ids) AND loop_key IS NULL
  AND seq >= coalesce((SELECT i.seq FROM iteration i WHERE i.workflow_id = step.workflow_id), 0)
UNION ALL
SELECT 'loop', workflow_id, loop_key, NULL, seq, turn, NULL, totals::text, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       NULL, next, NULL
FROM loop
UNION ALL
SELECT 'item', s.workflow_id, s.key, s.kind, s.seq, s.turn, s.attempt, NULL, NULL, s.loop_key,
       extract(epoch FROM s.wake_at - now())::double precision,
       extract(epoch FROM now() - s.recorded_at)::double precision, s.epoch, NULL, NULL, NULL, s.loop_offset, NULL
FROM loop l
JOIN dbosflow.step s ON s.workflow_id = l.workflow_id AND s.loop_key = l.loop_key
WHERE s.workflow_id = ANY(:ids) AND s.loop_offset >= l.next
UNION ALL
SELECT 'producer', own.workflow_id, own.key, b.ending, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       b.producer, b.count, b.bytes, b.tail, b.checksum
FROM own
CROSS JOIN LATERAL (
    SELECT producer, max(kind) FILTER (WHERE kind IN ('complete', 'error', 'cancelled')) AS ending,
           coalesce(sum(count) FILTER (WHERE kind = 'values'), 0)::bigint AS count,
           coalesce(sum(bytes - 1) FILTER (WHERE kind = 'values'), 0)::bigint AS bytes, max("offset" + count) AS tail,
           ((max(ARRAY["offset", checksum]) FILTER (WHERE kind = 'values'))[2])::integer AS checksum
    FROM dbosflow.stream_block
    WHERE workflow_id = own.workflow_id AND key = own.key AND epoch > 0     -- without blocks from outside
      AND "offset" >= own.start
      AND (own.path IS NULL OR producer = own.path OR starts_with(producer, own.path || '/')
           OR kind IN ('complete', 'error', 'cancelled'))
    GROUP BY producer
) AS b
UNION ALL
SELECT 'trimmed', own.workflow_id, own.key, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, t.producer,
       t.count, t.bytes, NULL, t.checksum
FROM own
CROSS JOIN LATERAL (
    SELECT producer, count, bytes, checksum FROM dbosflow.stream_trim
    WHERE workflow_id = own.workflow_id AND key = own.key AND "offset" IS NULL  -- without blocks from outside
      AND (own.path IS NULL OR producer = own.path OR starts_with(producer, own.path || '/'))
    OFFSET 0 -- a probe for each, and never a join with the whole table
) AS t
UNION ALL
SELECT 'workflow', id, NULL, NULL, NULL, NULL, NULL, CASE WHEN iteration IS NOT NULL THEN input::text END, NULL, NULL, NULL,
       NULL, NULL, NULL, iteration, NULL, forked_turn, NULL
FROM dbosflow.workflow
WHERE id = ANY(:ids) AND (forked_turn IS NOT NULL OR iteration IS NOT NULL)
UNION ALL
SELECT 'uncommitted', b.workflow_id, b.key, b.kind, NULL, NULL, b.attempt, NULL, NULL, NULL, NULL, NULL, NULL,
       b.producer, b.count, NULL, b."offset", NULL
FROM own
CROSS JOIN LATERAL (
    SELECT * FROM dbosflow.stream_block
    WHERE workflow_id = own.workflow_id AND key = own.key AND kind = 'values' AND attempt IS NOT NULL
      AND "offset" >= own.start AND (own.path IS NULL OR starts_with(producer, own.path || '/'))
    OFFSET 0
) AS b
WHERE NOT EXISTS (
      SELECT FROM dbosflow.step s
      WHERE s.workflow_id = b.workflow_id AND s.key = left(b.producer, -length(b.attempt) - 1)
        AND s.kind = 'step' AND s.error IS NULL AND b.attempt IN (s.attempt, '*'))
  AND NOT EXISTS (
      SELECT FROM dbosflow.stream_block r
      WHERE r.workflow_id = b.workflow_id AND r.key = b.key AND r.kind = 'rollback' AND r.producer = b.producer);

-- name: page (a workflow's records in the order in which they were made, from a place on)
-- `over_at` is the time at which a sleep was over, if that is on record under one of the `suffixes`.
SELECT s.key, s.kind, s.seq, s.turn, s.epoch, s.attempt, s.error::text AS error, s.child_id, s.wake_at, s.started_at,
       s.recorded_at,
-- [outputs
       s.output::text AS output,
-- ]
       CASE WHEN s.wake_at IS NOT NULL THEN (
           SELECT max(o.recorded_at) FROM dbosflow.step o
           WHERE o.workflow_id = s.workflow_id AND o.kind = ANY(:over_kinds::text[])
             AND o.key = ANY(ARRAY(SELECT s.key || suffix FROM unnest(:suffixes::text[]) AS u (suffix))))
       END AS over_at
FROM dbosflow.step s
WHERE s.workflow_id = :workflow_id::text AND (s.turn, s.seq) > (:turn::integer, :seq::integer)
ORDER BY s.turn, s.seq
LIMIT :limit::integer;

-- name: attempts (the failed attempts of a workflow, in order, and whether their steps are over; index: the primary key)
SELECT a.key, a.turn, a.seq,
       EXISTS (SELECT FROM dbosflow.step s
               WHERE s.workflow_id = a.workflow_id AND s.key = left(a.key, -length(a.attempt) - 1)
                 AND s.kind IN ('step', 'transaction'))
           AS is_done
FROM dbosflow.step a
WHERE a.workflow_id = :workflow_id::text AND a.kind = 'attempt'
ORDER BY a.turn, a.seq;

-- name: collected (the handler's results for each item of a loop, in the order of the stream)
SELECT output::text AS output FROM dbosflow.step
WHERE workflow_id = :workflow_id AND loop_key = :loop_key AND kind = 'step' AND error IS NULL
ORDER BY loop_offset;
