-- Priorities of workflows that wait.

-- name: set
-- Locks: the rows, in the order of their ids. A claim that has one is waited for: then it runs, and stays as it is. A claim
-- skips what is locked here, so whoever sets a priority notifies the queue's workers afterwards. Index: the primary key.
WITH chosen AS MATERIALIZED (
    SELECT w.id, w.status, w.queue, w.priority
    FROM dbosflow.workflow w
    WHERE w.id = ANY(:ids::text[])
    ORDER BY w.id
    FOR NO KEY UPDATE
), changed AS (
    UPDATE dbosflow.workflow w SET priority = :priority::integer
    FROM chosen c
    WHERE w.id = c.id AND c.status IN ('queued', 'scheduled') AND c.priority <> :priority::integer
)
SELECT c.id, c.status, CASE WHEN c.status IN ('queued', 'scheduled') THEN c.queue END AS queue FROM chosen c;
