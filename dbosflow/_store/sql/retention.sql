-- Removes old data, the beginnings of streams and ended workflows as a whole, and joins the blocks of ended workflows.

-- name: hold (compaction and pruning lock the row FOR UPDATE, so they and a trim wait for each other; owners never wait)
SELECT id FROM dbosflow.workflow WHERE id = :workflow_id FOR KEY SHARE;

-- name: trim (runs after hold, so that it sees the result of a compaction)
-- Removes whole blocks from the beginning, so offsets stay dense. It keeps the newest block, which has the tail or the
-- end, and everything from the first block on that is neither committed by a record nor covered by a rollback. Index: the
-- primary key.
-- It also keeps all blocks from outside as long as a statement runs whose snapshot may be older: a statement that appends
-- at the tail that it saw needs the block in that place to notice that another writer was faster. (Vacuum waits for the
-- same statements, so nothing would be gained.) `unseen` is read after this statement's own snapshot was taken, which
-- has the blocks. Transaction ids wrap around; a block older than a day counts as seen, whatever its id.
-- `turn` is the greatest turn that was trimmed; for values from outside, which have none, the workflow's last one: up to then
-- it may have read them. A fork may not go back before it.
-- A writer whose answer was lost writes again, and finds its row here if its block was received and trimmed meanwhile. Whoever
-- gave no key (`w:` and an id) does so for SURE (_records/producers.py) at most. So a day after they were trimmed the rows of such
-- writers are joined to one, by the trims with the section `join`: a workflow that receives messages for ever has the rows of
-- a day. The joined row has the sums, which are compared with limits, and the greatest turn: forks may go back as far as
-- before. `late` finds them by the time in their names, which is the writers', so that nothing else is read but what was
-- joined lately; what decides is the server's time. No row is joined twice: each trim adds what its own DELETE has removed.
-- A DELETE has an array and also a range: before Postgres 17 the index is not used for the items of the array, and the whole
-- stream would be read.
WITH unseen AS MATERIALIZED (
    SELECT max(age(backend_xmin)) AS age
    FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
), kept AS MATERIALIZED (
    SELECT least(
        :before::bigint,
        (SELECT b."offset" FROM dbosflow.stream_block b
         WHERE b.workflow_id = :workflow_id AND b.key = :key ORDER BY b."offset" DESC LIMIT 1),
        (SELECT min(b."offset") FROM dbosflow.stream_block b
         WHERE b.workflow_id = :workflow_id AND b.key = :key AND b."offset" < :before
           AND b.kind = 'values' AND b.attempt IS NOT NULL
           AND NOT EXISTS (
               SELECT FROM dbosflow.step s
               WHERE s.workflow_id = b.workflow_id AND s.key = left(b.producer, -length(b.attempt) - 1)
                 AND s.kind = 'step' AND s.error IS NULL AND b.attempt IN (s.attempt, '*'))
           AND NOT EXISTS (
               SELECT FROM dbosflow.stream_block r
               WHERE r.workflow_id = b.workflow_id AND r.key = b.key AND r.kind = 'rollback'
                 AND r.producer = b.producer)),
        (SELECT min(b."offset") FROM dbosflow.stream_block b
         WHERE b.workflow_id = :workflow_id AND b.key = :key AND b."offset" < :before
           AND b.epoch IS NOT DISTINCT FROM 0  -- so stream_block_input is not used, in which the scan would not stop
           AND b.created_at > now() - interval '1 day'
           AND age(b.xmin) <= (SELECT age FROM unseen))) AS "offset"
), old AS MATERIALIZED (
    SELECT b."offset"
    FROM dbosflow.stream_block b
    WHERE b.workflow_id = :workflow_id AND b.key = :key AND b."offset" < (SELECT "offset" FROM kept)
      AND b."offset" + b.count <= (SELECT "offset" FROM kept)
    ORDER BY b."offset"
    FOR UPDATE
), removed AS (
    DELETE FROM dbosflow.stream_block b
    WHERE b.workflow_id = :workflow_id AND b.key = :key AND b."offset" = ANY(ARRAY(SELECT "offset" FROM old))
      AND b."offset" < (SELECT "offset" FROM kept)
    RETURNING b.kind, b.producer, b.count, b.bytes, b.epoch, b."offset", b.checksum, b.turn
-- [join
), late AS MATERIALIZED (
    SELECT t.producer
    FROM dbosflow.stream_trim t
    WHERE t.workflow_id = :workflow_id AND t.key = :key AND t.producer > 'w:' AND starts_with(t.producer, 'w:')
      AND t.producer < 'w:' || regexp_replace(
          lpad(to_hex((extract(epoch FROM now() - interval '1 day') * 1000)::bigint), 12, '0'), '^(.{8})', '\1-')
      AND t."offset" IS NOT NULL AND t.trimmed_at < now() - interval '1 day'
    ORDER BY t.producer
    LIMIT 10000
    FOR UPDATE SKIP LOCKED
), joined AS (
    DELETE FROM dbosflow.stream_trim t
    WHERE t.workflow_id = :workflow_id AND t.key = :key AND t.producer = ANY(ARRAY(SELECT producer FROM late))
      AND t.producer BETWEEN (SELECT min(producer) FROM late) AND (SELECT max(producer) FROM late)
    RETURNING t.count, t.bytes, t."offset", t.turn
-- ]
)
INSERT INTO dbosflow.stream_trim (workflow_id, key, producer, count, bytes, "offset", checksum, turn)
SELECT :workflow_id, :key, r.producer, sum(r.count), sum(r.bytes - 1), min(r."offset") FILTER (WHERE r.epoch = 0),
       (max(ARRAY[r."offset", r.checksum]))[2],
       CASE WHEN bool_and(r.epoch = 0) THEN coalesce((
                SELECT max(s.turn) FROM dbosflow.step s WHERE s.workflow_id = :workflow_id), -1)
            WHEN bool_and(r.turn IS NOT NULL) THEN max(r.turn) END
FROM removed r
WHERE r.kind = 'values'
GROUP BY r.producer
-- [join
UNION ALL
SELECT :workflow_id, :key, 'w:', sum(j.count), sum(j.bytes), min(j."offset"), NULL,
       CASE WHEN bool_and(j.turn IS NOT NULL) THEN max(j.turn) END
FROM joined j
HAVING count(*) > 0
-- ]
ORDER BY 3
ON CONFLICT (workflow_id, key, producer)
DO UPDATE SET count = dbosflow.stream_trim.count + excluded.count, bytes = dbosflow.stream_trim.bytes + excluded.bytes,
              checksum = excluded.checksum,
              turn = CASE WHEN dbosflow.stream_trim.turn IS NOT NULL AND excluded.turn IS NOT NULL
                          THEN greatest(dbosflow.stream_trim.turn, excluded.turn) END;

-- name: first (the first offset that is left)
SELECT "offset" AS first FROM dbosflow.stream_block WHERE workflow_id = :workflow_id AND key = :key
ORDER BY "offset" LIMIT 1;

-- name: trimmed (whether values of a producer were removed)
SELECT count FROM dbosflow.stream_trim WHERE workflow_id = :workflow_id AND key = :key AND producer = :producer;

-- name: part_unneeded (of a workflow `w`: neither its parent nor a fork that may ask for its outcome is under way)
coalesce((SELECT p.ended_at IS NOT NULL FROM dbosflow.workflow p WHERE p.id = w.parent_id), true)
  AND NOT EXISTS (
      WITH RECURSIVE fork AS (
          SELECT f.id, f.ended_at FROM dbosflow.workflow f WHERE f.forked_from = ANY(ARRAY[w.id, w.parent_id])
          UNION
          SELECT f.id, f.ended_at FROM fork CROSS JOIN LATERAL (
              SELECT g.id, g.ended_at FROM dbosflow.workflow g WHERE g.forked_from = fork.id OFFSET 0) AS f
      )
      SELECT FROM fork WHERE ended_at IS NULL)

-- name: part_oldest_snapshot (the age of the oldest snapshot of a session that may still write; -1: there is none)
coalesce((SELECT max(age(backend_xmin)) FROM pg_stat_activity
          WHERE datname = current_database() AND pid <> pg_backend_pid()
            AND coalesce(state, '') NOT LIKE 'idle in transaction%'), -1)

-- name: part_writers (the transactions of such sessions)
(SELECT array_agg(backend_xid::text) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_xid IS NOT NULL
   AND coalesce(state, '') NOT LIKE 'idle in transaction%')

-- name: choose (finished workflows to be removed, oldest first; index: workflow_created)
-- A workflow whose parent runs is kept, because the parent may ask for its outcome; so may the forks of its parent, and theirs,
-- which are found by their forks: so a workflow is kept for its own forks, too. Workflows that another process removes,
-- trims or compacts are skipped. One is kept, as in trim, until every possible writer can see its end: a statement whose
-- snapshot is older may still append to it. The removal is a later statement, whose snapshot has all that such writers wrote:
-- what is open when pg_stat_activity is read (it is read once in a transaction) keeps the workflow here, and what is over by
-- then is seen there. A statement that is just being committed has no snapshot any more: the removal waits for such `writers`.
-- A session that is idle in its transaction commits nothing at that moment, and no writer is one: each is a statement in
-- autocommit, or holds the workflow's row. So a user's own transaction that stays open keeps nothing here.
-- An age of NULL is never reached. A retention's walk looks at a part of the table, keeps those of some names that were
-- created at `kept_since` or later, and keeps a workflow as long as its parent is there at all.
SELECT w.id, w.created_at, CASE WHEN w.ended_at >= now() - interval '1 day' THEN :part_writers END AS writers
FROM dbosflow.workflow w
WHERE w.created_at < now() - least(:finished_age::double precision, :failed_age::double precision) * interval '1 second'
  AND w.ended_at < now() - CASE w.status WHEN 'failed' THEN :failed_age::double precision
                                ELSE :finished_age::double precision END * interval '1 second'
-- [walk
  AND (w.created_at, w.id) > (:after_at::timestamptz, :after_id::text)
  AND (w.created_at, w.id) <= (:until_at::timestamptz, :until_id::text)
  AND coalesce((SELECT w.created_at < kept.since
                FROM unnest(:kept_names::text[], :kept_since::timestamptz[]) AS kept (name, since)
                WHERE kept.name = w.name LIMIT 1), true)
  AND coalesce((SELECT false FROM dbosflow.workflow p WHERE p.id = w.parent_id), true)
-- ]
  AND :part_unneeded
  AND (w.ended_at < now() - interval '1 day'
       OR age(w.xmin) > :part_oldest_snapshot)
ORDER BY w.created_at, w.id
LIMIT :batch
FOR UPDATE OF w SKIP LOCKED;

-- name: choose_by_id (workflows to be removed by their ids, with `children` all below; and why others are kept)
-- By the conditions of `choose`; but a row that another statement holds is waited for, in the order of the ids. What has ended
-- never changes again, so it is still as this snapshot shows it. `pg_stat_activity` is read after the locks were taken.
WITH RECURSIVE tree AS (
    SELECT w.id FROM dbosflow.workflow w WHERE w.id = ANY(:ids::text[])
    UNION
    SELECT below.id
    FROM tree
    CROSS JOIN LATERAL (SELECT c.id FROM dbosflow.workflow c WHERE c.parent_id = tree.id OFFSET 0) AS below
    WHERE :children::boolean
), ended AS MATERIALIZED (
    SELECT w.id, w.parent_id, w.ended_at, age(w.xmin) AS age
    FROM dbosflow.workflow w
    WHERE w.id = ANY(ARRAY(SELECT id FROM tree)) AND w.ended_at IS NOT NULL
    ORDER BY w.id
    FOR UPDATE
)
SELECT w.id, w.status, CASE
    WHEN w.ended_at IS NULL THEN 'active'
    WHEN e.id IS NULL THEN 'unknown'
    WHEN NOT coalesce((SELECT p.ended_at IS NOT NULL FROM dbosflow.workflow p WHERE p.id = e.parent_id), true)
        THEN 'needed'
    WHEN e.ended_at >= now() - interval '1 day'
         AND e.age <= :part_oldest_snapshot THEN 'held'
    ELSE 'deleted' END AS outcome,
       CASE WHEN e.ended_at >= now() - interval '1 day' THEN :part_writers END AS writers
FROM tree t
CROSS JOIN LATERAL (SELECT o.id, o.status, o.ended_at FROM dbosflow.workflow o WHERE o.id = t.id OFFSET 0) AS w
LEFT JOIN ended e ON e.id = w.id
ORDER BY w.id;

-- name: committing (how many of these transactions are not over; pg_stat_activity would show them as it was read before)
SELECT count(*) AS writers FROM pg_locks
WHERE locktype = 'transactionid' AND granted AND mode = 'ExclusiveLock' AND transactionid::text = ANY(:writers);

-- name: remove (all rows of workflows that `choose` has locked in this transaction)
-- Probes the primary keys for each workflow, and is written so that no plan can scan a table or join it as a whole.
-- A fork that was made before the lock, and committed after the snapshot of `choose`, is seen here.
WITH old AS MATERIALIZED (
    SELECT w.id
    FROM unnest(:ids::text[]) AS chosen (id)
    CROSS JOIN LATERAL (
        SELECT o.id, o.parent_id FROM dbosflow.workflow o WHERE o.id = chosen.id OFFSET 0
    ) AS w
    WHERE NOT EXISTS (
        WITH RECURSIVE fork AS (
            SELECT f.id, f.ended_at FROM dbosflow.workflow f WHERE f.forked_from = ANY(ARRAY[w.id, w.parent_id])
            UNION
            SELECT f.id, f.ended_at FROM fork CROSS JOIN LATERAL (
                SELECT g.id, g.ended_at FROM dbosflow.workflow g WHERE g.forked_from = fork.id OFFSET 0) AS f
        )
        SELECT FROM fork WHERE ended_at IS NULL)
), blocks AS (
    DELETE FROM dbosflow.stream_block WHERE workflow_id = ANY(ARRAY(SELECT id FROM old))
), trims AS (
    DELETE FROM dbosflow.stream_trim WHERE workflow_id = ANY(ARRAY(SELECT id FROM old))
), records AS (
    DELETE FROM dbosflow.step WHERE workflow_id = ANY(ARRAY(SELECT id FROM old))
), attributes AS (
    DELETE FROM dbosflow.attribute WHERE workflow_id = ANY(ARRAY(SELECT id FROM old))
), used AS (
    DELETE FROM dbosflow.used_units WHERE workflow_id = ANY(ARRAY(SELECT id FROM old))
), waiters AS (
    DELETE FROM dbosflow.waiter WHERE workflow_id = ANY(ARRAY(SELECT id FROM old))
), held AS MATERIALIZED ( -- in the order in which starts lock them: see dedup.sql
    SELECT d.workflow_id FROM dbosflow.dedup d
    WHERE d.workflow_id = ANY(ARRAY(SELECT id FROM old))
    ORDER BY d.queue, d.key
    FOR UPDATE
), keys AS (
    DELETE FROM dbosflow.dedup WHERE workflow_id = ANY(ARRAY(SELECT workflow_id FROM held))
)
DELETE FROM dbosflow.workflow WHERE id = ANY(ARRAY(SELECT id FROM old))
RETURNING id;

-- name: prunable (the number of workflows that prune would remove, by the same conditions; index: workflow_created)
SELECT count(*) AS workflows
FROM dbosflow.workflow w
WHERE w.created_at < now() - :age * interval '1 second' AND w.ended_at < now() - :age * interval '1 second'
  AND :part_unneeded
  AND (w.ended_at < now() - interval '1 day'
       OR age(w.xmin) > :part_oldest_snapshot);

-- name: claim_ended (locks the row of an ended workflow for a compaction; a second process gets no row)
SELECT id FROM dbosflow.workflow WHERE id = :workflow_id AND ended_at IS NOT NULL FOR UPDATE SKIP LOCKED;

-- name: compact (compacts a part of an ended workflow's stream; runs after claim_ended)
-- Merges consecutive value blocks of one producer, attempt and epoch, up to a certain size. A block of half that size is
-- left alone, so that no block is rewritten at each pass. Merged blocks are committed or rolled back together, and their
-- frames keep their offsets, so readers see the same as before in every view and at every position. The checksum is that
-- of the last merged block, because it covers all values before it, and so is the turn: a fork of the workflow before it
-- leaves the whole block out, and writes its values again. Dead letters, which nothing would write again, are only merged
-- within one turn; and blocks of older code, whose turn is unknown, only with one another. Nothing else is changed.
-- Returns where the next part begins, NULL at the end. Index: the primary key.
WITH stretch AS MATERIALIZED (
    SELECT b."offset", b.count, b.kind, b.values::text AS values, b.bytes, b.producer, b.producer_seq, b.attempt,
           b.epoch, b.created_at, b.checksum, b.turn,
           CASE WHEN b.producer LIKE '%+dead' OR b.turn IS NULL THEN b.turn ELSE 0 END AS apart
    FROM dbosflow.stream_block b
    WHERE b.workflow_id = :workflow_id AND b.key = :key AND b."offset" >= :start
    ORDER BY b."offset"
    LIMIT :max_blocks
), alike AS (
    SELECT s.*, count(*) FILTER (WHERE s.is_new) OVER (ORDER BY s."offset") AS run
    FROM (
        SELECT o.*, (o.kind, o.producer, o.attempt, o.epoch, o.apart)
                    IS DISTINCT FROM lag((o.kind, o.producer, o.attempt, o.epoch, o.apart)) OVER (ORDER BY o."offset")
                    OR greatest(o.bytes, lag(o.bytes) OVER (ORDER BY o."offset")) * 2 >= :max_bytes AS is_new
        FROM stretch o
    ) AS s
), placed AS (
    SELECT a.*, sum(a.bytes) OVER (PARTITION BY a.run ORDER BY a."offset") / :max_bytes AS part
    FROM alike a
), merged AS MATERIALIZED (
    SELECT min(p."offset") AS "offset", max(p."offset") AS last, sum(p.count)::integer AS count,
           '[' || string_agg(substr(p.values, 2, length(p.values) - 2), ',' ORDER BY p."offset") || ']' AS values,
           (sum(p.bytes) - count(*) + 1)::integer AS bytes, min(p.producer) AS producer,
           min(p.producer_seq) AS producer_seq, min(p.attempt) AS attempt, min(p.epoch) AS epoch,
           min(p.created_at) AS created_at, (max(ARRAY[p."offset", p.checksum]))[2] AS checksum, max(p.turn) AS turn
    FROM placed p
    WHERE p.kind = 'values'
    GROUP BY p.run, p.part
    HAVING count(*) > 1
), removed AS (
    DELETE FROM dbosflow.stream_block b
    WHERE b.workflow_id = :workflow_id AND b.key = :key AND b."offset" = ANY(ARRAY(
        SELECT s."offset" FROM stretch s JOIN merged m ON s."offset" BETWEEN m."offset" AND m.last))
      AND b."offset" BETWEEN :start AND (SELECT max(m.last) FROM merged m)
    RETURNING b."offset"
), written AS (
    INSERT INTO dbosflow.stream_block
        (workflow_id, key, "offset", count, kind, values, bytes, producer, producer_seq, attempt, epoch, created_at,
         checksum, turn)
    SELECT :workflow_id, :key, m."offset", m.count, 'values', m.values::json, m.bytes, m.producer, m.producer_seq,
           m.attempt, m.epoch, m.created_at, m.checksum, m.turn
    FROM merged m
    WHERE (SELECT count(*) FROM removed) > 0
)
SELECT CASE WHEN (SELECT count(*) FROM stretch) = :max_blocks
            THEN greatest((SELECT max("offset") FROM stretch), :start + 1) END AS next,
       (SELECT count(*) FROM removed) AS removed, (SELECT count(*) FROM merged) AS merged;

-- name: scattered (streams with at least this many blocks that could join the block before; their values are not read)
SELECT n.key
FROM (
    SELECT b.key, b.kind = 'values' AND greatest(b.bytes, lag(b.bytes) OVER neighbour) * 2 < :max_bytes
                  AND (b.kind, b.producer, b.epoch, b.apart)
                      IS NOT DISTINCT FROM lag((b.kind, b.producer, b.epoch, b.apart)) OVER neighbour AS joins
    FROM (
        SELECT s.key, s."offset", s.kind, s.bytes, s.producer, s.epoch,
               CASE WHEN s.producer LIKE '%+dead' OR s.turn IS NULL THEN s.turn ELSE 0 END AS apart
        FROM dbosflow.stream_block s
        WHERE s.workflow_id = :workflow_id
    ) AS b
    WINDOW neighbour AS (PARTITION BY b.key ORDER BY b."offset")
) AS n
WHERE n.joins
GROUP BY n.key
HAVING count(*) >= :least
ORDER BY n.key;

-- name: ended_after (ended workflows in the order of their creation; index: workflow_created)
-- `coalesce` keeps the planner from what it knows of `ended_at`: of a table in which none had ended it would sort the rest.
SELECT w.id, w.created_at
FROM dbosflow.workflow w
WHERE coalesce(w.ended_at, 'infinity') < 'infinity' AND (w.created_at, w.id) > (:created_at, :id)
ORDER BY w.created_at, w.id
LIMIT :limit;

-- name: turn_due_in (seconds until this process may take the turn to prune: of another one only when that has missed its own)
SELECT extract(epoch FROM r.due_at + CASE WHEN r.holder <> :holder::uuid THEN :patience ELSE 0 END * interval '1 second'
                         - now())::double precision AS due_in
FROM dbosflow.retention r;

-- name: add_turn (the row of the turn, where there is none yet)
INSERT INTO dbosflow.retention (id) VALUES (1) ON CONFLICT (id) DO NOTHING;

-- name: take_turn (locks the row for the transaction of one pass; no row: it is not due, or another process has it)
-- What the row says is compared again once it is locked, so that of two processes that find it due one gets it.
SELECT r.holder = :holder::uuid AS is_ours, r.after_at, r.after_id
FROM dbosflow.retention r
WHERE r.due_at + CASE WHEN r.holder <> :holder::uuid THEN :patience ELSE 0 END * interval '1 second' <= now()
FOR UPDATE SKIP LOCKED;

-- name: newest (since when the last workflows of a name were created; no row: there are fewer. Index: workflow_created)
SELECT w.created_at
FROM dbosflow.workflow w
WHERE w.name = :name AND w.ended_at IS NOT NULL
ORDER BY w.created_at DESC, w.id DESC
OFFSET :count - 1 LIMIT 1;

-- name: pass_end (the last workflow that a pass looks at; no row: it looks at all that are left. Index: workflow_created)
SELECT w.created_at, w.id
FROM dbosflow.workflow w
WHERE (w.created_at, w.id) > (:after_at::timestamptz, :after_id::text)
  AND w.created_at < now() - least(:finished_age::double precision, :failed_age::double precision) * interval '1 second'
ORDER BY w.created_at, w.id
OFFSET :count - 1 LIMIT 1;

-- name: leave_turn (says where the next pass begins, and when; runs last in the transaction of a pass)
-- A pass is followed by a pause of its own length; a whole walk by one of ten times that, so that a walk over much that
-- is kept costs little.
UPDATE dbosflow.retention r
SET holder = CASE WHEN NOT :is_over::boolean THEN :holder::uuid END,
    after_at = CASE WHEN NOT :is_over THEN :after_at::timestamptz END,
    after_id = CASE WHEN NOT :is_over THEN :after_id::text END,
    began_at = CASE WHEN r.after_at IS NULL THEN now() ELSE r.began_at END,
    removed = CASE WHEN r.after_at IS NULL THEN 0 ELSE r.removed END + :removed::bigint,
    completed_at = CASE WHEN :is_over THEN clock_timestamp() ELSE r.completed_at END,
    due_at = clock_timestamp() + CASE
        WHEN NOT :is_over THEN greatest(:pause * interval '1 second', clock_timestamp() - now())
        ELSE least(:longest * interval '1 second', greatest(:every * interval '1 second', 10 * (
            clock_timestamp() - CASE WHEN r.after_at IS NULL THEN now() ELSE r.began_at END))) END
RETURNING extract(epoch FROM due_at - clock_timestamp())::double precision AS due_in, removed;
