-- Streams that belong to no workflow. `dbosflow/_store/standalone.py` has the transactions that these statements are parts of.

-- name: look (a stream by its path. Indexes: the primary keys, and standalone_stream_forked)
SELECT s.id, s.path, s.content_type, s.ttl, s.expires_at, s.forked_from, s.fork_offset, s.fork_part,
       coalesce(tail.is_end, false) AS closed,
       coalesce(CASE WHEN tail.is_end THEN tail."offset" ELSE tail."offset" + tail.count END, 0)::bigint AS next,
       s.deleted_at IS NOT NULL OR coalesce(s.expires_at <= now(), false) AS is_over,
       (s.deleted_at IS NOT NULL OR coalesce(s.expires_at <= now(), false)) AND EXISTS (
           SELECT FROM dbosflow.standalone_stream f WHERE f.forked_from = s.path) AS is_needed,
       coalesce(s.expires_at < now() + s.ttl * interval '1 second', false) AS is_aging
FROM dbosflow.standalone_stream s
LEFT JOIN LATERAL (
    SELECT b."offset", b.count, b.kind <> 'values' AS is_end
    FROM dbosflow.stream_block b
    WHERE b.workflow_id = s.id AND b.key = 'stream'
    ORDER BY b."offset" DESC
    LIMIT 1
) AS tail ON true
WHERE s.path = :path::text;

-- name: touch (an access moves the end of a stream with a ttl on; a little further, so that few accesses have to)
UPDATE dbosflow.standalone_stream s
SET expires_at = now() + s.ttl * interval '1 second' + least(s.ttl * 0.05, 60) * interval '1 second'
WHERE s.path = :path::text AND s.ttl IS NOT NULL AND s.expires_at > now()
  AND s.expires_at < now() + s.ttl * interval '1 second';

-- name: lock (the first statement of every transaction that writes. In one order, so that none waits in a circle)
SELECT s.path FROM dbosflow.standalone_stream s WHERE s.path = ANY(:paths::text[]) ORDER BY s.path FOR UPDATE;

-- name: create (no row: another one was faster)
INSERT INTO dbosflow.standalone_stream (path, id, content_type, ttl, expires_at, forked_from, fork_offset, fork_part)
VALUES (:path::text, :id::text, :content_type::text, :ttl::integer,
        coalesce(:expires_at::timestamptz, now() + :ttl * interval '1 second'
                                           + least(:ttl * 0.05, 60) * interval '1 second'),
        :forked_from::text, :fork_offset::bigint, :fork_part::bigint)
ON CONFLICT DO NOTHING
RETURNING path;

-- name: append (appends a block, ends the stream, or both, if the producer's place is right; runs after lock)
-- `writer` names this request: what it has written is found again when the answer of the commit was lost. The producer's row
-- says the same to a client that repeats its request. What a producer has written is told from what it has not before the end
-- of the stream counts, so a repetition is answered alike before and after it. Indexes: the primary keys, stream_block_input.
WITH tail AS MATERIALIZED (
    SELECT CASE WHEN b.kind <> 'values' THEN b."offset" ELSE b."offset" + b.count END AS next, b.kind <> 'values' AS closed
    FROM dbosflow.stream_block b
    WHERE b.workflow_id = :id::text AND b.key = 'stream'
    ORDER BY b."offset" DESC
    LIMIT 1
), verdict AS MATERIALIZED (
    SELECT coalesce(t.next, 0) AS next, coalesce(t.closed, false) AS closed, p.epoch, p.seq, CASE
        WHEN EXISTS (
            SELECT FROM dbosflow.stream_block b
            WHERE b.workflow_id = :id AND b.key = 'stream' AND b.producer = :writer::text AND b.epoch = 0) THEN 'written'
        WHEN p.epoch = :epoch::bigint AND :seq::bigint <= p.seq THEN 'duplicate'
        WHEN :epoch < p.epoch THEN 'stale'
        WHEN t.closed AND :count::integer = 0 AND :producer::text IS NULL THEN 'written'
        WHEN t.closed THEN 'closed'
        WHEN :count > 0 AND :media_type::text <> lower(btrim(split_part(s.content_type, ';', 1))) THEN 'other_type'
        WHEN :epoch > p.epoch AND :seq > 0 THEN 'not_from_zero'
        WHEN :seq > CASE WHEN p.epoch = :epoch THEN p.seq + 1 ELSE 0 END THEN 'gap'
        WHEN :stream_seq::text COLLATE "C" <= s.last_seq COLLATE "C" THEN 'regression'
        ELSE 'appended' END AS outcome
    FROM dbosflow.standalone_stream s
    LEFT JOIN tail t ON true
    LEFT JOIN dbosflow.standalone_producer p ON p.stream_id = s.id AND p.producer = :producer
    WHERE s.path = :path::text
), produced AS (
    INSERT INTO dbosflow.standalone_producer AS p (stream_id, producer, epoch, seq)
    SELECT :id, :producer, :epoch, :seq FROM verdict v WHERE v.outcome = 'appended' AND :producer IS NOT NULL
    ON CONFLICT (stream_id, producer) DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq
), blocks AS (
    INSERT INTO dbosflow.stream_block
        (workflow_id, key, "offset", count, kind, values, bytes, producer, producer_seq, epoch)
    SELECT :id, 'stream', v.next, :count, 'values', :values::json, :bytes::integer, :writer, 0, 0
    FROM verdict v WHERE v.outcome = 'appended' AND :count > 0
    UNION ALL
    SELECT :id, 'stream', v.next + :count, 1, 'complete', NULL, 0,
           CASE WHEN :count > 0 THEN 'w:end' ELSE :writer END, 0, 0
    FROM verdict v WHERE v.outcome = 'appended' AND :close::boolean
), numbered AS (
    UPDATE dbosflow.standalone_stream s SET last_seq = :stream_seq
    FROM verdict v WHERE s.path = :path AND v.outcome = 'appended' AND :stream_seq IS NOT NULL
)
SELECT v.outcome, v.next + CASE WHEN v.outcome = 'appended' THEN :count ELSE 0 END AS next,
       v.closed OR (v.outcome = 'appended' AND :close) AS closed, v.epoch, v.seq
FROM verdict v;

-- name: copy (what a stream has before an offset, for a fork of it; both are locked. Index: the primary key)
INSERT INTO dbosflow.stream_block
    (workflow_id, key, "offset", count, kind, values, bytes, producer, producer_seq, epoch, created_at)
SELECT :id::text, b.key, b."offset", b.count, b.kind, b.values, b.bytes, b.producer, b.producer_seq, b.epoch, b.created_at
FROM dbosflow.stream_block b
WHERE b.workflow_id = :source::text AND b.key = 'stream' AND b.kind = 'values' AND b."offset" + b.count <= :before::bigint;

-- name: block_at (the block of values that has an offset. Index: the primary key)
SELECT b."offset", b.count, b.values::text AS values
FROM dbosflow.stream_block b
WHERE b.workflow_id = :id::text AND b.key = 'stream' AND b.kind = 'values' AND b."offset" <= :offset::bigint
  AND b."offset" + b.count > :offset
ORDER BY b."offset" DESC
LIMIT 1;

-- name: add (a part of a block, to a fork that begins in it)
INSERT INTO dbosflow.stream_block (workflow_id, key, "offset", count, kind, values, bytes, producer, producer_seq, epoch)
VALUES (:id::text, 'stream', :offset::bigint, :count::integer, 'values', :values::json, :bytes::integer, :writer::text, 0, 0);

-- name: empty (removes the content of a stream whose row is locked)
WITH producers AS (
    DELETE FROM dbosflow.standalone_producer WHERE stream_id = :id::text
)
DELETE FROM dbosflow.stream_block WHERE workflow_id = :id AND key = 'stream';

-- name: mark (a stream whose forks keep its name; runs after empty)
UPDATE dbosflow.standalone_stream SET deleted_at = coalesce(deleted_at, now()) WHERE path = :path::text;

-- name: remove (the row of a stream without forks; runs after empty)
DELETE FROM dbosflow.standalone_stream WHERE path = :path::text RETURNING forked_from;

-- name: unneeded (the deleted stream at a path, if it has no forks any more; runs after lock. Index: standalone_stream_forked)
SELECT s.path FROM dbosflow.standalone_stream s
WHERE s.path = :path::text AND s.deleted_at IS NOT NULL
  AND NOT EXISTS (SELECT FROM dbosflow.standalone_stream f WHERE f.forked_from = s.path);

-- name: expired (some streams whose time is over; index: standalone_stream_expired)
SELECT s.path FROM dbosflow.standalone_stream s
WHERE s.expires_at <= now() AND s.deleted_at IS NULL
ORDER BY s.expires_at
LIMIT :limit::integer;
