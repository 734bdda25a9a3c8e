-- How old data goes: the beginnings of streams, and finished workflows as a whole. Nothing here runs by itself.

-- name: hold (compaction and pruning take the row FOR UPDATE: they wait for a trim, and it for them; the owner waits for none)
SELECT id FROM dbosflow.workflow WHERE id = :workflow_id FOR KEY SHARE;

-- name: trim (a later statement than hold, so that it sees what a compaction has made)
-- Whole blocks from the beginning on, so offsets stay dense. The newest block stays, which holds the tail, or the end; so
-- does all from the first block on that neither a record commits nor a rollback takes back. Index: the primary key.
WITH kept AS MATERIALIZED (
    SELECT least(
        :before::bigint,
        (SELECT b."offset" FROM dbosflow.stream_block b
         WHERE b.workflow_id = :workflow_id AND b.key = :key ORDER BY b."offset" DESC LIMIT 1),
        (SELECT min(b."offset") FROM dbosflow.stream_block b
         WHERE b.workflow_id = :workflow_id AND b.key = :key AND b.kind = 'values' AND b.attempt IS NOT NULL
           AND NOT EXISTS (
               SELECT FROM dbosflow.step s
               WHERE s.workflow_id = b.workflow_id AND s.key = left(b.producer, -length(b.attempt) - 1)
                 AND s.kind = 'step' AND s.error IS NULL AND b.attempt IN (s.attempt, '*'))
           AND NOT EXISTS (
               SELECT FROM dbosflow.stream_block r
               WHERE r.workflow_id = b.workflow_id AND r.key = b.key AND r.kind = 'rollback'
                 AND r.producer = b.producer))) AS "offset"
), old AS MATERIALIZED (
    SELECT b."offset"
    FROM dbosflow.stream_block b, kept
    WHERE b.workflow_id = :workflow_id AND b.key = :key AND b."offset" + b.count <= kept."offset"
    ORDER BY b."offset"
    FOR UPDATE OF b
), removed AS (
    DELETE FROM dbosflow.stream_block b
    USING old
    WHERE b.workflow_id = :workflow_id AND b.key = :key AND b."offset" = old."offset"
    RETURNING b.kind, b.producer, b.count, b.bytes
)
INSERT INTO dbosflow.stream_trim (workflow_id, key, producer, count, bytes)
SELECT :workflow_id, :key, r.producer, sum(r.count), sum(r.bytes - 1)
FROM removed r
WHERE r.kind = 'values'
GROUP BY r.producer
ORDER BY r.producer
ON CONFLICT (workflow_id, key, producer)
DO UPDATE SET count = dbosflow.stream_trim.count + excluded.count, bytes = dbosflow.stream_trim.bytes + excluded.bytes;

-- name: first (the first offset that is still there)
SELECT min("offset") AS first FROM dbosflow.stream_block WHERE workflow_id = :workflow_id AND key = :key;

-- name: trimmed (whether something of a producer is gone)
SELECT count FROM dbosflow.stream_trim WHERE workflow_id = :workflow_id AND key = :key AND producer = :producer;

-- name: prune (finished workflows, oldest first, with all that is theirs; index: workflow_created)
-- One whose parent still runs stays, since that may ask for its outcome. What another process prunes or compacts is skipped.
WITH old AS MATERIALIZED (
    SELECT w.id
    FROM dbosflow.workflow w
    WHERE w.created_at < now() - :age * interval '1 second' AND w.ended_at < now() - :age * interval '1 second'
      AND NOT EXISTS (SELECT FROM dbosflow.workflow p WHERE p.id = w.parent_id AND p.ended_at IS NULL)
    ORDER BY w.created_at, w.id
    LIMIT :batch
    FOR UPDATE OF w SKIP LOCKED
), blocks AS (
    DELETE FROM dbosflow.stream_block b USING old WHERE b.workflow_id = old.id
), trims AS (
    DELETE FROM dbosflow.stream_trim t USING old WHERE t.workflow_id = old.id
), records AS (
    DELETE FROM dbosflow.step s USING old WHERE s.workflow_id = old.id
)
DELETE FROM dbosflow.workflow w USING old WHERE w.id = old.id
RETURNING w.id;
