-- Versions: the workflows that are pinned to one (see dbosflow/_records/pins.py), and the workers that carry one.

-- name: pinned (the numbers of workflows that have not ended, by version and status; reads the table, for a person)
SELECT split_part(w.queue, '/', 3) AS version, w.status, count(*) AS workflows, min(w.created_at) AS oldest
FROM dbosflow.workflow w
WHERE starts_with(w.queue, 'dbosflow/pinned/') AND w.ended_at IS NULL
GROUP BY 1, 2;

-- name: carried (by live workers, with the numbers of their runs; index: workflow_owned)
SELECT k.version_name AS version, count(*) AS workers,
       sum((SELECT count(*) FROM dbosflow.workflow w WHERE w.worker_id = k.id))::bigint AS runs
FROM dbosflow.worker k
WHERE k.state = 'live' AND k.version_name IS NOT NULL AND now() - k.renewed_at < k.lease * interval '1 second'
GROUP BY k.version_name;

-- name: unpin (workflows that have not ended go to the queue of their version's; its workers and others may take them there)
WITH chosen AS MATERIALIZED (
    SELECT w.id, w.status, w.queue, starts_with(w.queue, 'dbosflow/pinned/') AND w.ended_at IS NULL AS is_pinned
    FROM dbosflow.workflow w
    WHERE w.id = ANY(:ids::text[])
    ORDER BY w.id
    FOR UPDATE
), freed AS (
    UPDATE dbosflow.workflow w
    SET queue = regexp_replace(w.queue, '^dbosflow/pinned/[^/]*/', '')
    FROM chosen c
    WHERE w.id = c.id AND c.is_pinned
    RETURNING w.id, w.queue
)
SELECT c.id, c.status, freed.queue FROM chosen c LEFT JOIN freed ON freed.id = c.id;
