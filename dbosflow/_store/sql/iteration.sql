-- The earlier iterations of workflows that were continued as new: see dbosflow/_runtime/engine/iterations.py.

-- name: remove_earlier (records of earlier iterations; and the counts of what those had written to streams and was trimmed)
-- Their owner is done with them, whoever it was: the record with which the current iteration began is durable. The records of
-- steps that have succeeded and whose values are in a stream stay, because they show that these are committed: see stream_block
-- in schema.sql. Rows that another process removes are skipped. Indexes: the primary keys.
WITH current AS MATERIALIZED (
    SELECT c.key AS path, c.seq
    FROM dbosflow.workflow w
    JOIN dbosflow.step c ON c.workflow_id = w.id AND c.key = '~' || w.iteration
    WHERE w.id = :workflow_id::text
), old AS MATERIALIZED (
    SELECT s.key
    FROM dbosflow.step s
    WHERE s.workflow_id = :workflow_id::text AND s.seq < (SELECT seq FROM current)
      AND NOT (s.kind = 'step' AND s.error IS NULL AND s.key IN (
          SELECT left(b.producer, -length(b.attempt) - 1)
          FROM dbosflow.stream_block b
          WHERE b.workflow_id = :workflow_id::text AND b.kind = 'values' AND b.attempt IS NOT NULL))
    LIMIT :limit::integer
    FOR UPDATE SKIP LOCKED
), removed AS (
    DELETE FROM dbosflow.step
    WHERE workflow_id = :workflow_id::text AND key = ANY(ARRAY(SELECT key FROM old))
    RETURNING key
), trims AS (
    DELETE FROM dbosflow.stream_trim t
    USING current c
    WHERE t.workflow_id = :workflow_id::text AND t."offset" IS NULL
      AND NOT (t.producer = c.path OR starts_with(t.producer, c.path || '/'))
), used AS (
    DELETE FROM dbosflow.used_units u
    USING current c
    WHERE u.workflow_id = :workflow_id::text AND u.key <> '' AND NOT starts_with(u.key, c.path || '/')
)
SELECT count(*) AS removed FROM removed;
