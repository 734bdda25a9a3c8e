-- The attributes of workflows, by which users search.

-- name: update (sets some attributes of a workflow, and removes others; no row if there is no such workflow)
-- Locks: the workflow's row FOR KEY SHARE. A removal of the workflow waits for it, or is waited for; its owner never is. Rows are
-- written in the order of their names.
WITH held AS MATERIALIZED (
    SELECT w.id FROM dbosflow.workflow w WHERE w.id = :workflow_id::text FOR KEY SHARE
), removed AS (
    DELETE FROM dbosflow.attribute a
    WHERE a.workflow_id = (SELECT id FROM held) AND a.name = ANY(:removed::text[])
), changed AS (
    INSERT INTO dbosflow.attribute (workflow_id, name, value)
    SELECT held.id, n.name, n.value
    FROM held
    CROSS JOIN unnest(:names::text[], :values::text[]) AS n (name, value)
    ORDER BY n.name
    ON CONFLICT (workflow_id, name) DO UPDATE SET value = excluded.value
)
SELECT id FROM held;
