-- name: history (all that the runs of these workflows need to replay: records, and what each producer has durable)
-- Scans of the primary keys; the values of the blocks are not touched. The order of the undecided blocks is their own.
SELECT 'record' AS part, workflow_id, key, kind, seq, turn, attempt, output::text AS output, error::text AS error,
       child_id, extract(epoch FROM wake_at - now())::double precision AS remaining,
       extract(epoch FROM now() - recorded_at)::double precision AS age,
       NULL AS producer, NULL::bigint AS count, NULL::bigint AS tail
FROM dbosflow.step
WHERE workflow_id = ANY(:ids)
UNION ALL
SELECT 'producer', workflow_id, key, max(kind) FILTER (WHERE kind IN ('complete', 'error', 'cancelled')),
       NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       producer, coalesce(sum(count) FILTER (WHERE kind = 'values'), 0)::bigint, max("offset" + count)
FROM dbosflow.stream_block
WHERE workflow_id = ANY(:ids) AND epoch > 0             -- not what outsiders wrote
GROUP BY workflow_id, key, producer
UNION ALL
SELECT 'undecided', b.workflow_id, b.key, b.kind, NULL, NULL, b.attempt, NULL, NULL, NULL, NULL, NULL,
       b.producer, b.count, b."offset"
FROM dbosflow.stream_block b
WHERE b.workflow_id = ANY(:ids) AND b.kind = 'values' AND b.attempt IS NOT NULL
  AND NOT EXISTS (
      SELECT FROM dbosflow.step s
      WHERE s.workflow_id = b.workflow_id AND s.key = left(b.producer, -length(b.attempt) - 1)
        AND s.kind = 'step' AND s.error IS NULL AND b.attempt IN (s.attempt, '*'))
  AND NOT EXISTS (
      SELECT FROM dbosflow.stream_block r
      WHERE r.workflow_id = b.workflow_id AND r.key = b.key AND r.kind = 'rollback' AND r.producer = b.producer);

-- name: list (a workflow's records in the order they were made)
SELECT key, kind, seq, turn, epoch, attempt, output::text AS output, error::text AS error, started_at, recorded_at
FROM dbosflow.step WHERE workflow_id = :workflow_id
ORDER BY turn, seq;
