-- Exports workflows from one database and imports them into another, row by row, each column in its text form. The tables' own
-- columns are asked for, so that nothing is left out which another part of the schema has added.

-- name: columns (of these tables, as far as they exist)
SELECT c.relname::text AS "table", array_agg(a.attname::text ORDER BY a.attnum) AS columns
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
WHERE n.nspname = :schema AND c.relkind = 'r' AND c.relname = ANY(:tables::text[]) AND a.attnum > 0 AND NOT a.attisdropped
GROUP BY c.relname;

-- name: patient (for a transaction that waits for a file)
SET LOCAL idle_in_transaction_session_timeout = 0;

-- name: tree (a workflow and all that it has started, and that these have started; indexes: workflow_pkey, workflow_parent)
WITH RECURSIVE tree AS (
    SELECT w.id, w.status FROM dbosflow.workflow w WHERE w.id = :workflow_id
    UNION
    SELECT below.id, below.status
    FROM tree
    CROSS JOIN LATERAL (
        SELECT c.id, c.status FROM dbosflow.workflow c WHERE c.parent_id = tree.id
        OFFSET 0 -- a probe of workflow_parent for each, and never a join with the whole table
    ) AS below
)
SELECT id, status FROM tree;

-- name: ancestors (of a workflow: who has started it, who has started that one, and so on)
WITH RECURSIVE above AS (
    SELECT w.parent_id FROM dbosflow.workflow w WHERE w.id = :workflow_id
    UNION
    SELECT p.parent_id FROM above JOIN dbosflow.workflow p ON p.id = above.parent_id
)
SELECT parent_id AS id FROM above WHERE parent_id IS NOT NULL;

-- name: shared (children that forks among these workflows go on with, and who has started them; index: workflow_pkey)
SELECT w.id, c.id AS child_id, c.parent_id
FROM dbosflow.workflow w
JOIN dbosflow.step s ON s.workflow_id = w.id AND s.kind IN ('child', 'mapped')
CROSS JOIN LATERAL (
    SELECT c.id, c.parent_id FROM dbosflow.workflow c WHERE c.id = s.child_id AND c.parent_id <> w.id OFFSET 0) AS c
WHERE w.id = ANY(:ids::text[]) AND w.forked_from IS NOT NULL AND w.ended_at IS NULL
ORDER BY s.seq;

-- name: existing (which of these ids are taken)
SELECT id FROM dbosflow.workflow WHERE id = ANY(:ids::text[]);

-- name: export_rows (a table's rows of some workflows)
SELECT :columns FROM dbosflow.:table WHERE :key = ANY(:ids::text[]);

-- name: import_rows
COPY dbosflow.:table (:columns) FROM STDIN;
