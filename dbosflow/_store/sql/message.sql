-- Messages to workflows: the values of streams that begin with `dbosflow/inbox/`, written from outside (_records/spaces.py).

-- name: send (appends messages to inboxes: for each topic all blocks, in order, or none)
-- Places, and what was there before, are given as in `append` of stream.sql, which explains why that is safe: the primary key lets only one writer have
-- the place that it saw, and what this statement does not see of an earlier try was not written. `first` is sorted, to avoid
-- deadlocks. Nothing is declared: a topic begins with its first message. No frame ends an inbox: the status that this
-- statement sees is the answer. A message that is accepted in the moment of the end is never received, and `prune` keeps
-- the workflow as long as such a statement may be under way.
-- The bounds: what is stored of a topic counts, so the receiver, who removes what it has received, makes room. Topics are
-- counted only for the first message of one, in the index that has nothing but blocks from outside; as many topics as
-- are begun in the same moment may exceed that bound.
-- Indexes: the primary keys, two probes per topic; those of stream_block_input and stream_trim, one probe per block.
-- With the section `outbox` the messages are those of the outbox for some workflows: of each the oldest rows in their order,
-- up to a start. Each row that this statement sees is locked, SKIP LOCKED, and what stands behind a row that it did not get is
-- left alone: so of several engines none overtakes another one. Messages to a workflow whose start is in the outbox wait for it,
-- also those before it: after a failover the clock, and so the order, may have gone back. A row is removed as its message is written, so it is
-- sent once; or because the workflow has ended or is unknown. As many messages of a topic are sent as fit.
WITH
-- [outbox
taken AS MATERIALIZED (
    SELECT l.*, row_number() OVER (ORDER BY l.workflow_id, l.id) AS number
    FROM (
        SELECT r.position, row_number() OVER (PARTITION BY o.workflow_id ORDER BY r.position) AS place, o.*
        FROM unnest(:targets::text[]) AS t (id)
        CROSS JOIN LATERAL (
            SELECT x.id, row_number() OVER earlier AS position, bool_and(x.is_message) OVER earlier AS is_message,
                   sum(x.bytes) OVER earlier AS bytes
            FROM (
                SELECT y.id, y.key IS NOT NULL AS is_message, pg_column_size(y.payload) AS bytes
                FROM dbosflow.outbox y WHERE y.workflow_id = t.id ORDER BY y.id LIMIT :max_rows::integer
            ) AS x
            WINDOW earlier AS (ORDER BY x.id)
        ) AS r
        CROSS JOIN LATERAL (
            SELECT y.workflow_id, y.id, y.key, coalesce(y.producer, 'w:' || y.id) AS producer, y.payload::text AS payload
            FROM dbosflow.outbox y
            WHERE y.workflow_id = t.id AND y.id = r.id
            FOR UPDATE SKIP LOCKED
        ) AS o
        WHERE r.is_message
          AND ((SELECT true FROM dbosflow.workflow w WHERE w.id = t.id)
               OR (SELECT true FROM dbosflow.outbox y WHERE y.workflow_id = t.id AND y.name IS NOT NULL LIMIT 1) IS NULL)
          AND (r.position = 1 OR r.bytes <= :max_bytes::bigint)
    ) AS l
    WHERE l.place = l.position
),
-- ]
given AS MATERIALIZED (
    SELECT *
    FROM unnest(:ids::text[], :keys::text[], :counts::integer[], :values::text[], :bytes::integer[], :producers::text[])
         WITH ORDINALITY AS b (workflow_id, key, count, values, bytes, producer, number)
-- [outbox
    UNION ALL
    SELECT t.workflow_id, t.key, 1, '[' || t.payload || ']', octet_length(t.payload) + 2, t.producer, t.number
    FROM (
        SELECT a.*, row_number() OVER (PARTITION BY a.workflow_id, a.key, a.producer ORDER BY a.number) AS time
        FROM taken a
    ) AS t
    WHERE t.time = 1  -- the others find this one later
-- ]
), place AS MATERIALIZED (
    SELECT s.workflow_id, s.key, w.status, w.status IN ('succeeded', 'failed', 'cancelled') AS ended,
           coalesce(tail.next, 0) AS next, coalesce(tail.next - head.first, 0) AS stored,
           CASE WHEN tail.next IS NULL AND w.id IS NOT NULL THEN (
               WITH RECURSIVE topic AS (
                   (SELECT b.key, starts_with(b.key, 'dbosflow/inbox/')::integer AS number
                    FROM dbosflow.stream_block b
                    WHERE b.workflow_id = s.workflow_id AND b.epoch = 0
                    ORDER BY b.key
                    LIMIT 1)
                   UNION ALL
                   SELECT following.key, topic.number + starts_with(following.key, 'dbosflow/inbox/')::integer
                   FROM topic
                   CROSS JOIN LATERAL (
                       SELECT b.key
                       FROM dbosflow.stream_block b
                       WHERE b.workflow_id = s.workflow_id AND b.epoch = 0 AND b.key > topic.key
                       ORDER BY b.key
                       LIMIT 1
                   ) AS following
                   WHERE topic.number < :max_topics::integer
               )
               SELECT coalesce(max(number), 0) FROM topic) >= :max_topics::integer END AS crowded
    FROM (SELECT DISTINCT workflow_id, key FROM given) AS s
    LEFT JOIN dbosflow.workflow w ON w.id = s.workflow_id
    LEFT JOIN LATERAL (
        SELECT b."offset" + b.count AS next
        FROM dbosflow.stream_block b
        WHERE b.workflow_id = s.workflow_id AND b.key = s.key
        ORDER BY b."offset" DESC
        LIMIT 1
    ) AS tail ON true
    LEFT JOIN LATERAL (
        SELECT b."offset" AS first
        FROM dbosflow.stream_block b
        WHERE b.workflow_id = s.workflow_id AND b.key = s.key
        ORDER BY b."offset"
        LIMIT 1
    ) AS head ON true
), known AS MATERIALIZED (
    SELECT g.number, same."offset", CASE WHEN same.values::text <> g.values THEN same.values::text END AS other
    FROM given g
    CROSS JOIN LATERAL (
        (SELECT b."offset", b.values
         FROM dbosflow.stream_block b
         WHERE b.workflow_id = g.workflow_id AND b.key = g.key AND b.producer = g.producer AND b.epoch = 0
         LIMIT 1)
        UNION ALL
        (SELECT t."offset", NULL
         FROM dbosflow.stream_trim t
         WHERE t.workflow_id = g.workflow_id AND t.key = g.key AND t.producer = g.producer AND t."offset" IS NOT NULL
         LIMIT 1)
    ) AS same
), fresh AS MATERIALIZED (
    SELECT g.*, p.next + sum(g.count) OVER earlier - g.count AS "offset", row_number() OVER earlier AS position,
           p.crowded IS NOT TRUE AND p.stored + sum(g.count) OVER stream
-- [outbox
           - sum(g.count) OVER stream + sum(g.count) OVER earlier
-- ]
           <= :max_values::bigint AS fits
    FROM given g
    JOIN place p ON p.workflow_id = g.workflow_id AND p.key = g.key
    WHERE p.ended IS FALSE AND NOT EXISTS (SELECT FROM known k WHERE k.number = g.number)
    WINDOW stream AS (PARTITION BY g.workflow_id, g.key),
           earlier AS (PARTITION BY g.workflow_id, g.key ORDER BY g.number)
), first AS (
    INSERT INTO dbosflow.stream_block
        (workflow_id, key, "offset", count, kind, values, bytes, producer, producer_seq, epoch)
    SELECT workflow_id, key, "offset", count, 'values', values::json, bytes, producer, 0, 0
    FROM fresh WHERE position = 1 AND fits
    ORDER BY workflow_id, key
    ON CONFLICT DO NOTHING
    RETURNING workflow_id, key
), rest AS (
    INSERT INTO dbosflow.stream_block
        (workflow_id, key, "offset", count, kind, values, bytes, producer, producer_seq, epoch)
    SELECT f.workflow_id, f.key, f."offset", f.count, 'values', f.values::json, f.bytes, f.producer, 0, 0
    FROM fresh f JOIN first ON first.workflow_id = f.workflow_id AND first.key = f.key
    WHERE f.position > 1
-- [outbox
      AND f.fits
), gone AS (
    DELETE FROM dbosflow.outbox o
    WHERE o.workflow_id = ANY(:targets::text[]) AND o.id = ANY(ARRAY(
        SELECT t.id
        FROM taken t
        JOIN given g ON g.number = t.number
        JOIN place p ON p.workflow_id = t.workflow_id AND p.key = t.key
        LEFT JOIN known k ON k.number = t.number
        LEFT JOIN fresh f ON f.number = t.number
        LEFT JOIN first ON first.workflow_id = t.workflow_id AND first.key = t.key
        WHERE p.ended IS NOT FALSE OR k.number IS NOT NULL OR (f.fits AND first.key IS NOT NULL)))
-- ]
)
SELECT p.status, coalesce(k."offset", CASE WHEN first.key IS NOT NULL THEN f."offset" END)::bigint AS "offset",
       k.number IS NOT NULL AS known, k.other AS values, f.fits IS FALSE AS "full", p.stored, p.crowded IS TRUE AS crowded
-- [outbox
     , g.workflow_id, g.key, g.producer, CASE WHEN k.other IS NOT NULL THEN g.values END AS payload
-- ]
FROM given g
JOIN place p ON p.workflow_id = g.workflow_id AND p.key = g.key
LEFT JOIN known k ON k.number = g.number
LEFT JOIN fresh f ON f.number = g.number
LEFT JOIN first ON first.workflow_id = g.workflow_id AND first.key = g.key
ORDER BY g.number;

-- name: event (the last value of an event that is not rolled back, or the last that stays; with the workflow's status)
-- Backward from the newest block. Indexes: the primary keys and stream_block_rollback, a probe for each block on the way.
SELECT w.status, last."offset", last.value, last.created_at
FROM (SELECT :workflow_id::text AS id) AS r
LEFT JOIN dbosflow.workflow w ON w.id = r.id
LEFT JOIN LATERAL (
    SELECT b."offset" + b.count - 1 AS "offset", (b.values -> -1)::text AS value, b.created_at
    FROM dbosflow.stream_block b
    WHERE b.workflow_id = r.id AND b.key = :key::text AND b.kind = 'values'
      AND (
          SELECT true FROM dbosflow.stream_block r  -- not EXISTS, which would be joined with all blocks of the stream
          WHERE r.workflow_id = b.workflow_id AND r.key = b.key AND r.kind = 'rollback' AND r.producer = b.producer
          LIMIT 1) IS NULL
      AND (NOT :committed::boolean OR b.attempt IS NULL OR EXISTS (
          SELECT FROM dbosflow.step s
          WHERE s.workflow_id = b.workflow_id AND s.key = left(b.producer, -length(b.attempt) - 1)
            AND s.kind = 'step' AND s.error IS NULL AND b.attempt IN (s.attempt, '*')))
    ORDER BY b."offset" DESC
    LIMIT 1
) AS last ON true;

-- name: events (the names of a workflow's events; a probe of the primary key for each of its streams)
WITH RECURSIVE stream AS (
    (SELECT b.key FROM dbosflow.stream_block b WHERE b.workflow_id = :workflow_id::text ORDER BY b.key LIMIT 1)
    UNION ALL
    SELECT following.key
    FROM stream
    CROSS JOIN LATERAL (
        SELECT b.key FROM dbosflow.stream_block b
        WHERE b.workflow_id = :workflow_id::text AND b.key > stream.key ORDER BY b.key LIMIT 1
    ) AS following
)
SELECT key FROM stream WHERE starts_with(key, 'dbosflow/event/') ORDER BY key COLLATE "C";

-- name: resolve (the answer to a token, unless somebody has answered before)
-- The record of the token shows that there is such a token, and its secret: the caller names both. The primary key lets one
-- answer in. An answer that another one has overtaken in the same moment sees nothing: it is sent again, and finds it.
-- A secret that is encoded is returned as it is stored: once the caller has decoded it, it asks again, for a `record` with that
-- text.
WITH token AS MATERIALIZED (
    SELECT w.id, w.status, w.status IN ('succeeded', 'failed', 'cancelled') AS ended, s.output::text AS record,
           coalesce(s.output #>> '{}' = :secret::text OR s.output::text = :record::text, false) AS valid
    FROM (SELECT :workflow_id::text AS id) AS r
    LEFT JOIN dbosflow.workflow w ON w.id = r.id
    LEFT JOIN dbosflow.step s ON s.workflow_id = w.id AND s.key = :operation::text AND s.kind = 'token'
), there AS MATERIALIZED (
    SELECT b.producer FROM dbosflow.stream_block b
    WHERE b.workflow_id = :workflow_id::text AND b.key = :key::text AND b."offset" = 0
), answered AS (
    INSERT INTO dbosflow.stream_block
        (workflow_id, key, "offset", count, kind, values, bytes, producer, producer_seq, epoch)
    SELECT t.id, :key::text, 0, 1, :kind::text, :payload::json, :bytes::integer, :producer::text, 0, 0
    FROM token t
    WHERE t.valid AND NOT t.ended AND NOT EXISTS (SELECT FROM there)
    ON CONFLICT DO NOTHING
    RETURNING producer
)
SELECT t.status, t.valid, CASE WHEN NOT t.valid THEN t.record END AS stored,
       coalesce((SELECT producer FROM there), (SELECT producer FROM answered)) AS answered_by,
       EXISTS (SELECT FROM there) AS known
FROM token t;
