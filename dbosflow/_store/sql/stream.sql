-- name: fetch (what readers at these offsets have not seen, with each owner's status, all in one snapshot)
-- Begins with the block that holds the offset, not with the next one. Index: the primary key, a probe and a short range a stream.
SELECT r.number, w.status, w.error::text AS error, page."offset", page.count, page.kind, page.values::text AS values,
       page.producer, page.attempt
FROM unnest(:ids::text[], :keys::text[], :starts::bigint[]) WITH ORDINALITY AS r (workflow_id, key, start, number)
LEFT JOIN dbosflow.workflow w ON w.id = r.workflow_id
LEFT JOIN LATERAL (
    SELECT b.*, sum(b.bytes) OVER (ORDER BY b."offset") - b.bytes AS bytes_before
    FROM dbosflow.stream_block b
    WHERE b.workflow_id = r.workflow_id AND b.key = r.key
      AND b."offset" >= coalesce((
          SELECT held."offset" FROM dbosflow.stream_block held
          WHERE held.workflow_id = r.workflow_id AND held.key = r.key AND held."offset" <= r.start
          ORDER BY held."offset" DESC LIMIT 1), 0)
    ORDER BY b."offset"
    LIMIT :max_blocks
) AS page ON page.bytes_before < :max_bytes
ORDER BY r.number, page."offset";

-- name: list
SELECT key, max("offset" + count) AS tail, sum(bytes)::bigint AS bytes,
       max(kind) FILTER (WHERE kind IN ('complete', 'error', 'cancelled')) AS closed
FROM dbosflow.stream_block WHERE workflow_id = :workflow_id
GROUP BY key ORDER BY key;
