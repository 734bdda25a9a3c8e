-- What suspended workflows wait for: see dbosflow/_runtime/execution/suspender.py. The batch that suspends writes the rows, and
-- whoever queues a workflow again removes them in the statement that does so, under the lock of the workflow's row.
-- All wakers take the rows in one order and skip locked ones: whoever holds a `waiting` row wakes, claims or cancels it.

-- name: somebody (whether any workflow waits for more than a time)
SELECT EXISTS (SELECT FROM dbosflow.waiter) AS waits;

-- name: news (which of these targets have news: the end of a workflow, or a frame that a reader has not seen)
-- No value and no outcome is read, however large. Indexes: the primary keys and stream_block_rollback, a probe or two each.
SELECT r.number
FROM unnest(:ids::text[], :keys::text[], :starts::bigint[], :committed::boolean[]) WITH ORDINALITY
    AS r (workflow_id, key, start, committed, number)
LEFT JOIN LATERAL (
    SELECT w.status FROM dbosflow.workflow w WHERE w.id = r.workflow_id OFFSET 0
) AS w ON true
LEFT JOIN LATERAL (
    SELECT b."offset", b.kind, b.producer, b.attempt
    FROM dbosflow.stream_block b
    WHERE b.workflow_id = r.workflow_id AND b.key = r.key AND b."offset" + b.count > r.start
      AND b."offset" >= coalesce((
          SELECT held."offset" FROM dbosflow.stream_block held
          WHERE held.workflow_id = r.workflow_id AND held.key = r.key AND held."offset" <= r.start
          ORDER BY held."offset" DESC LIMIT 1), 0)
    ORDER BY b."offset"
    LIMIT 1
) AS unseen ON true
WHERE w.status IS NULL OR w.status IN ('succeeded', 'failed', 'cancelled') OR r.key IS NOT NULL AND w.status = 'blocked'
   OR unseen."offset" > r.start OR unseen.kind <> 'values'
   OR unseen."offset" IS NOT NULL AND (NOT r.committed OR unseen.attempt IS NULL OR (
          SELECT true FROM dbosflow.step s
          WHERE s.workflow_id = r.workflow_id AND s.key = left(unseen.producer, -length(unseen.attempt) - 1)
            AND s.kind = 'step' AND s.error IS NULL AND unseen.attempt IN (s.attempt, '*')
          LIMIT 1) OR (
          SELECT true FROM dbosflow.stream_block b
          WHERE b.workflow_id = r.workflow_id AND b.key = r.key AND b.kind = 'rollback' AND b.producer = unseen.producer
          LIMIT 1));

-- name: statuses
SELECT id, status FROM dbosflow.workflow WHERE id = ANY(:ids::text[]);

-- name: wake_by_topic (what the hints of a commit are about; of many waiters only some, and none that somebody else holds, which
-- may be to change it: if any is left, there is a row without a queue, and the caller asks again)
-- A hint need not be about an end, and who looks anew waits again. A workflow that never ran cannot look: it waits for the
-- end of another one, which took its key before (see dedup.sql), and is queued only if that has ended.
-- Indexes: waiter_topic, the primary keys.
WITH found AS MATERIALIZED (
    SELECT w.id
    FROM dbosflow.workflow w
    WHERE w.id = ANY(ARRAY(
              SELECT x.workflow_id
              FROM unnest(:topics::text[]) AS t (topic)
              CROSS JOIN LATERAL (
                  SELECT x.workflow_id FROM dbosflow.waiter x WHERE x.topic BETWEEN t.topic AND t.topic OFFSET 0
              ) AS x))
      AND w.status IS NOT DISTINCT FROM 'waiting'
      AND (w.epoch > 0 OR NOT EXISTS (
          SELECT FROM dbosflow.waiter x
          CROSS JOIN LATERAL (SELECT t.status FROM dbosflow.workflow t WHERE t.id = x.target_id OFFSET 0) AS t
          WHERE x.workflow_id = w.id AND t.status NOT IN ('succeeded', 'failed', 'cancelled')))
), due AS MATERIALIZED (
    SELECT w.id
    FROM dbosflow.workflow w
    WHERE w.id = ANY(ARRAY(SELECT id FROM found)) AND w.status IS NOT DISTINCT FROM 'waiting'
    ORDER BY w.id
    LIMIT :limit::integer
    FOR NO KEY UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM dbosflow.waiter WHERE workflow_id = ANY(ARRAY(SELECT id FROM due))
), woken AS (
    UPDATE dbosflow.workflow w SET status = 'queued', error = NULL  -- of one that was put off: see workflow.sql
    FROM unnest(ARRAY(SELECT id FROM due)) AS d (id)
    WHERE w.id = d.id
    RETURNING w.queue
)
SELECT queue FROM woken
UNION ALL
SELECT NULL WHERE (SELECT count(*) FROM found) > (SELECT count(*) FROM due);

-- name: wake (workflows for which there is news)
WITH due AS MATERIALIZED (
    SELECT w.id
    FROM dbosflow.workflow w
    WHERE w.id = ANY(:ids::text[]) AND w.status IS NOT DISTINCT FROM 'waiting'
    ORDER BY w.id
    FOR NO KEY UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM dbosflow.waiter WHERE workflow_id = ANY(ARRAY(SELECT id FROM due))
)
UPDATE dbosflow.workflow w SET status = 'queued'
FROM unnest(ARRAY(SELECT id FROM due)) AS d (id)
WHERE w.id = d.id
RETURNING w.queue;

-- name: wake_due (the clock step: workflows whose time has come, of any name and queue; index: workflow_due)
WITH due AS MATERIALIZED (
    SELECT w.id
    FROM dbosflow.workflow w
    WHERE w.status IN ('waiting', 'scheduled') AND w.wake_at <= now()
    ORDER BY w.wake_at
    LIMIT :limit::integer
    FOR NO KEY UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM dbosflow.waiter WHERE workflow_id = ANY(ARRAY(SELECT id FROM due))
)
UPDATE dbosflow.workflow w SET status = 'queued'
FROM unnest(ARRAY(SELECT id FROM due)) AS d (id)
WHERE w.id = d.id
RETURNING w.queue;

-- name: next_due (seconds until the earliest time comes that a workflow waits for; 0 or less if it has come)
-- Index: workflow_due, whose first entry is read.
SELECT extract(epoch FROM (
    SELECT w.wake_at
    FROM dbosflow.workflow w
    WHERE w.status IN ('waiting', 'scheduled') AND w.wake_at IS NOT NULL
    ORDER BY w.wake_at
    LIMIT 1) - now())::text AS seconds;

-- name: way (from a workflow to another one, over suspended ones that wait for nothing but the end of the next; or no row)
WITH RECURSIVE way AS (
    SELECT :start::text AS id, 1 AS number
    UNION ALL
    SELECT following.target_id, way.number + 1
    FROM way
    CROSS JOIN LATERAL (
        SELECT min(x.target_id) AS target_id
        FROM dbosflow.waiter x
        WHERE x.workflow_id = way.id
        HAVING count(*) = 1 AND bool_and(x.key IS NULL) AND (
            SELECT w.status = 'waiting' AND w.wake_at IS NULL FROM dbosflow.workflow w WHERE w.id = way.id)
    ) AS following
    WHERE way.id <> :stop::text AND way.number < 100
)
SELECT id FROM way WHERE EXISTS (SELECT FROM way WHERE id = :stop::text) ORDER BY number;

-- name: circles (one workflow of each circle that one of these is in, by ways like these; up to a hundred long)
WITH RECURSIVE way AS (
    SELECT i.id AS origin, i.id, 0 AS number FROM unnest(:ids::text[]) AS i (id)
    UNION ALL
    SELECT way.origin, following.target_id, way.number + 1
    FROM way
    CROSS JOIN LATERAL (
        SELECT min(x.target_id) AS target_id
        FROM dbosflow.waiter x
        WHERE x.workflow_id = way.id
        HAVING count(*) = 1 AND bool_and(x.key IS NULL) AND (
            SELECT w.status = 'waiting' AND w.wake_at IS NULL FROM dbosflow.workflow w WHERE w.id = way.id)
    ) AS following
    WHERE way.number < 100 AND (way.number = 0 OR way.id <> way.origin)
)
SELECT DISTINCT min(id) AS id FROM way GROUP BY origin HAVING bool_or(number > 0 AND id = origin);

-- name: forget (the rows of workflows that wait no more: of one that was cancelled in the instant of its suspension)
WITH stale AS MATERIALIZED (
    SELECT w.id
    FROM dbosflow.workflow w
    WHERE w.id = ANY(:ids::text[]) AND w.status <> 'waiting'
    ORDER BY w.id
    FOR NO KEY UPDATE SKIP LOCKED
)
DELETE FROM dbosflow.waiter WHERE workflow_id = ANY(ARRAY(SELECT id FROM stale));

-- name: waiters (a page of them, for a look at what they wait for; index: the primary key)
SELECT x.workflow_id, x.topic, x.target_id, x.key, x."offset", x.committed,
       coalesce((SELECT w.status = 'waiting' FROM dbosflow.workflow w WHERE w.id = x.workflow_id), false) AS waits
FROM dbosflow.waiter x
WHERE (x.workflow_id, x.topic) > (:workflow_id::text, :topic::text)
ORDER BY x.workflow_id, x.topic
LIMIT :limit::integer;
