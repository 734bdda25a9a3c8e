-- name: history (all that the runs of these workflows need to replay: records, and what each producer has durable)
-- One scan of each primary key; the values of the blocks are not touched.
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
WHERE workflow_id = ANY(:ids)
GROUP BY workflow_id, key, producer;

-- name: list (a workflow's records in the order they were made)
SELECT key, kind, seq, turn, epoch, attempt, output::text AS output, error::text AS error, started_at, recorded_at
FROM dbosflow.step WHERE workflow_id = :workflow_id
ORDER BY turn, seq;
