-- name: fetch (what readers at these offsets have not seen, with the status of each workflow, from one snapshot)
-- Begins with the block that has the offset, and not with the next one. It includes all later rollbacks, however far ahead,
-- so that no reader is given values that are rolled back already; and for a committed view, which blocks are committed.
-- Indexes: the primary keys, a probe and a short range per stream, a probe per block of an attempt; stream_block_rollback.
WITH wanted AS MATERIALIZED (
    SELECT * FROM unnest(:ids::text[], :keys::text[], :starts::bigint[], :committed::boolean[]) WITH ORDINALITY
        AS r (workflow_id, key, start, committed, number)
)
SELECT r.number, w.status, w.error::text AS error, page."offset", page.count, page.kind, page.values::text AS values,
       page.producer, page.attempt, page.bytes,
       CASE WHEN NOT r.committed OR page.attempt IS NULL OR page.kind <> 'values' THEN true ELSE EXISTS (
           SELECT FROM dbosflow.step s
           WHERE s.workflow_id = r.workflow_id AND s.key = left(page.producer, -length(page.attempt) - 1)
             AND s.kind = 'step' AND s.error IS NULL AND page.attempt IN (s.attempt, '*')) END AS committed
FROM wanted r
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
    LIMIT :max_blocks::integer
) AS page ON page.bytes_before < :max_bytes::integer
UNION ALL
SELECT r.number, NULL, NULL, b."offset", 0, b.kind, b.values::text, b.producer, b.attempt, 0, true
FROM wanted r
JOIN dbosflow.stream_block b
  ON b.workflow_id = r.workflow_id AND b.key = r.key AND b.kind = 'rollback' AND b."offset" >= r.start
ORDER BY 1, 4;

-- name: tail (one backward probe of the primary key)
SELECT coalesce((
    SELECT b."offset" + b.count FROM dbosflow.stream_block b
    WHERE b.workflow_id = :workflow_id AND b.key = :key ORDER BY b."offset" DESC LIMIT 1), 0)::bigint AS tail;

-- name: backwards (the blocks before an offset, newest first; the values of control frames only. Index: the primary key)
SELECT b."offset", b.count, b.kind, CASE WHEN b.kind <> 'values' THEN b.values::text END AS values, b.attempt,
       b.attempt IS NULL OR EXISTS (
           SELECT FROM dbosflow.step s
           WHERE s.workflow_id = b.workflow_id AND s.key = left(b.producer, -length(b.attempt) - 1)
             AND s.kind = 'step' AND s.error IS NULL AND b.attempt IN (s.attempt, '*')) AS committed
FROM dbosflow.stream_block b
WHERE b.workflow_id = :workflow_id AND b.key = :key AND b."offset" < :before
ORDER BY b."offset" DESC
LIMIT :max_blocks;

-- name: emitted (the durable values of a producer, in order)
SELECT values::text AS values FROM dbosflow.stream_block
WHERE workflow_id = :workflow_id AND key = :key AND producer = :producer AND kind = 'values'
ORDER BY "offset";

-- name: checksums (of a producer's blocks, in order; the values are not read)
SELECT "offset", producer_seq AS before, producer_seq + count AS stop, checksum FROM dbosflow.stream_block
WHERE workflow_id = :workflow_id AND key = :key AND producer = :producer AND kind = 'values'
ORDER BY "offset";

-- name: values_at (the values of the block at an offset)
SELECT values::text AS values FROM dbosflow.stream_block
WHERE workflow_id = :workflow_id AND key = :key AND "offset" = :offset;

-- name: list (one stream, or all, the engine's own only if they are asked for; the values are not read. Index: the primary key, and step's for blocks of an attempt)
-- `committed` is the offset of the first block that is neither committed by a record nor covered by a rollback.
SELECT b.key, coalesce(max(b.kind) FILTER (WHERE b.kind IN ('complete', 'error', 'cancelled')), 'open') AS state,
       min(b."offset") AS first, max(b."offset" + b.count) AS tail,
       coalesce(min(b."offset") FILTER (WHERE b.uncommitted), max(b."offset" + b.count)) AS committed,
       coalesce(sum(b.count) FILTER (WHERE b.kind = 'values'), 0)::bigint AS values, sum(b.bytes)::bigint AS bytes,
       count(*) AS blocks,
       coalesce(array_agg(DISTINCT b.producer ORDER BY b.producer) FILTER (WHERE b.kind = 'values'), '{}') AS producers,
       min(b.created_at) AS created_at, max(b.created_at) AS written_at
FROM (
    SELECT a.key, a."offset", a.count, a.kind, a.bytes, a.producer, a.created_at,
           a.kind = 'values' AND a.attempt IS NOT NULL
           AND NOT EXISTS (
               SELECT FROM dbosflow.step s
               WHERE s.workflow_id = a.workflow_id AND s.key = left(a.producer, -length(a.attempt) - 1)
                 AND s.kind = 'step' AND s.error IS NULL AND a.attempt IN (s.attempt, '*'))
           AND NOT EXISTS (
               SELECT FROM dbosflow.stream_block r
               WHERE r.workflow_id = a.workflow_id AND r.key = a.key AND r.kind = 'rollback'
                 AND r.producer = a.producer) AS uncommitted
    FROM dbosflow.stream_block a
    WHERE a.workflow_id = :workflow_id
      AND CASE WHEN :key::text IS NULL THEN :reserved::boolean OR NOT starts_with(a.key, 'dbosflow/')
               ELSE a.key = :key END
) AS b
GROUP BY b.key ORDER BY b.key;

-- name: append (appends blocks from outside to inputs: for each stream all blocks, in order, or none)
-- The blocks of a stream are placed at the tail that this statement sees. The first one decides: the primary key lets
-- only one writer have the place, and no other statement that saw this tail can write after it. A writer that lost tries
-- again with the new tail. For the same reason `known` is exact: if this statement does not see a block of ours, the
-- first place is taken, too. The end of a workflow takes a place in each of its inputs, so nothing is written after it.
-- `first` is sorted, to avoid deadlocks. What is stored of a block that was there, if it is another text, is returned: the
-- same values may be encoded otherwise.
-- If a stream would exceed a limit, nothing is written to it; the writer learns how full the stream is, and sends what
-- fits. All values ever written count. Their number follows from the tail, because inputs hold nothing else. Their bytes
-- are added up from where the writer has last seen the stream (`known`), unless that part was trimmed, or belongs to
-- another workflow that had this id.
-- Indexes: the primary keys, one probe per stream; those of stream_block_input and stream_trim, one probe per block.
WITH given AS MATERIALIZED (
    SELECT *
    FROM unnest(:ids::text[], :keys::text[], :counts::integer[], :kinds::text[], :values::text[], :bytes::integer[],
                :producers::text[], :known_runs::text[], :known_offsets::bigint[], :known_bytes::bigint[])
         WITH ORDINALITY AS b (workflow_id, key, count, kind, values, bytes, producer, known_run, known_offset,
                               known_bytes, number)
), place AS MATERIALIZED (
    SELECT s.workflow_id, s.key, w.status, w.input_streams, coalesce(tail.next, 0) AS next,
           s.key = ANY(w.input_streams) AS declared,
           w.status IN ('succeeded', 'failed', 'cancelled') OR tail.kind IN ('complete', 'error', 'cancelled') AS ended,
           w.created_at::text AS run, written.bytes
    FROM (SELECT DISTINCT workflow_id, key, known_run, known_offset, known_bytes FROM given) AS s
    LEFT JOIN dbosflow.workflow w ON w.id = s.workflow_id
    LEFT JOIN LATERAL (
        SELECT b."offset" + b.count AS next, b.kind
        FROM dbosflow.stream_block b
        WHERE b.workflow_id = s.workflow_id AND b.key = s.key
        ORDER BY b."offset" DESC
        LIMIT 1
    ) AS tail ON true
    LEFT JOIN LATERAL (
        SELECT b."offset" AS first
        FROM dbosflow.stream_block b
        WHERE b.workflow_id = s.workflow_id AND b.key = s.key AND :max_bytes::bigint IS NOT NULL
        ORDER BY b."offset"
        LIMIT 1
    ) AS head ON true
    LEFT JOIN LATERAL (
        SELECT s.known_run IS NOT DISTINCT FROM w.created_at::text AND s.known_offset > head.first AS goes_on
    ) AS seen ON true
    LEFT JOIN LATERAL (
        SELECT coalesce(sum(b.bytes - 1) FILTER (WHERE b.kind = 'values'), 0)
               + CASE WHEN seen.goes_on THEN s.known_bytes ELSE coalesce((
                     SELECT sum(t.bytes) FROM dbosflow.stream_trim t
                     WHERE t.workflow_id = s.workflow_id AND t.key = s.key), 0) END AS bytes
        FROM dbosflow.stream_block b
        WHERE b.workflow_id = s.workflow_id AND b.key = s.key
          AND b."offset" >= CASE WHEN seen.goes_on THEN s.known_offset ELSE 0 END
    ) AS written ON :max_bytes::bigint IS NOT NULL
), known AS MATERIALIZED (
    SELECT g.number, same."offset", CASE WHEN same.values::text <> g.values THEN same.values::text END AS other
    FROM given g
    CROSS JOIN LATERAL (
        (SELECT b."offset", b.values
         FROM dbosflow.stream_block b
         WHERE b.workflow_id = g.workflow_id AND b.key = g.key AND b.producer = g.producer AND b.epoch = 0
         LIMIT 1)                       -- there is only one; without the limit the whole index could be joined instead
        UNION ALL                       -- or it was trimmed
        (SELECT t."offset", NULL
         FROM dbosflow.stream_trim t
         WHERE t.workflow_id = g.workflow_id AND t.key = g.key AND t.producer = g.producer AND t."offset" IS NOT NULL
         LIMIT 1)
    ) AS same
), fresh AS MATERIALIZED (
    SELECT g.*, p.next + sum(g.count) OVER earlier - g.count AS "offset", row_number() OVER earlier AS position,
           count(*) FILTER (WHERE g.kind = 'values') OVER stream = 0
           OR (p.next + sum(g.count) FILTER (WHERE g.kind = 'values') OVER stream <= :max_values::bigint) IS NOT FALSE
              AND (p.bytes + sum(g.bytes - 1) FILTER (WHERE g.kind = 'values') OVER stream - 1 <= :max_bytes::bigint)
                  IS NOT FALSE AS fits
    FROM given g
    JOIN place p ON p.workflow_id = g.workflow_id AND p.key = g.key
    WHERE p.declared AND p.ended IS NOT TRUE AND NOT EXISTS (SELECT FROM known k WHERE k.number = g.number)
    WINDOW stream AS (PARTITION BY g.workflow_id, g.key),
           earlier AS (PARTITION BY g.workflow_id, g.key ORDER BY g.number)
), first AS (
    INSERT INTO dbosflow.stream_block
        (workflow_id, key, "offset", count, kind, values, bytes, producer, producer_seq, epoch)
    SELECT workflow_id, key, "offset", count, kind, values::json, bytes, producer, 0, 0
    FROM fresh WHERE position = 1 AND fits
    ORDER BY workflow_id, key
    ON CONFLICT DO NOTHING
    RETURNING workflow_id, key
), rest AS (
    INSERT INTO dbosflow.stream_block
        (workflow_id, key, "offset", count, kind, values, bytes, producer, producer_seq, epoch)
    SELECT f.workflow_id, f.key, f."offset", f.count, f.kind, f.values::json, f.bytes, f.producer, 0, 0
    FROM fresh f JOIN first ON first.workflow_id = f.workflow_id AND first.key = f.key
    WHERE f.position > 1
)
SELECT p.status, p.input_streams, coalesce(p.declared, false) AS declared, coalesce(p.ended, false) AS ended,
       coalesce(k."offset", CASE WHEN first.key IS NOT NULL THEN f."offset" END)::bigint AS "offset",
       k.number IS NOT NULL AS known, k.other AS values, f.fits IS FALSE AS "full", p.next, p.bytes::bigint AS bytes, p.run
FROM given g
JOIN place p ON p.workflow_id = g.workflow_id AND p.key = g.key
LEFT JOIN known k ON k.number = g.number
LEFT JOIN fresh f ON f.number = g.number
LEFT JOIN first ON first.workflow_id = g.workflow_id AND first.key = g.key
ORDER BY g.number;
