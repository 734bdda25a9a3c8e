-- Listings and counts of workflows. A statement of a listing looks at a limited number of workflows, the newest first, from a
-- place on, whatever its criteria: so it holds no snapshot for long. Where an index has few candidates, these are looked at
-- instead. The statements are completed with one of the sources (`by_...`), with the conditions and the columns of a record.

-- name: by_age (any workflow; index: workflow_created)
SELECT * FROM dbosflow.workflow w
WHERE (w.created_at, w.id) < (:before_at::timestamptz, :before_id::text)
-- [created_after
  AND w.created_at >= :created_after::timestamptz
-- ]
ORDER BY w.created_at DESC, w.id DESC
LIMIT :scan::integer

-- name: by_status (what needs attention; index: workflow_unsuccessful, once for each status)
SELECT found.*
FROM unnest(:statuses::text[]) AS s (status)
CROSS JOIN LATERAL (
    SELECT * FROM dbosflow.workflow w
    WHERE w.status = s.status AND w.status IN ('blocked', 'failed', 'cancelled')
      AND (w.created_at, w.id) < (:before_at::timestamptz, :before_id::text)
    ORDER BY w.created_at DESC, w.id DESC
    LIMIT :scan::integer
) AS found

-- name: by_owner (what waits in a queue or has an owner; indexes: workflow_queued, workflow_owned)
(SELECT w.* FROM dbosflow.workflow w WHERE w.status = 'queued' AND w.queue >= '' OFFSET 0)
UNION ALL
(SELECT w.* FROM dbosflow.workflow w WHERE w.worker_id IS NOT NULL AND w.status <> 'queued' OFFSET 0)

-- name: by_parent (the children of one; index: workflow_parent)
SELECT * FROM dbosflow.workflow w WHERE w.parent_id = :parent_id::text
OFFSET 0

-- name: by_origin (the forks of one; index: workflow_forked)
SELECT * FROM dbosflow.workflow w WHERE w.forked_from = :forked_from::text
OFFSET 0

-- name: by_attribute (index: attribute_value)
SELECT found.*
FROM dbosflow.attribute a
CROSS JOIN LATERAL (SELECT * FROM dbosflow.workflow w WHERE w.id = a.workflow_id OFFSET 0) AS found
WHERE a.name = :attribute::text AND a.value = :attribute_value::text

-- name: candidates (how many workflows a source has, as far as it matters)
SELECT count(*) AS candidates FROM (
    SELECT FROM (:source) AS source LIMIT :scan::integer + 1
) AS few;

-- name: conditions (what is asked of a workflow `w`)
true
-- [statuses
AND w.status = ANY(:statuses::text[])
-- ]
-- [names
AND w.name = ANY(:names::text[])
-- ]
-- [queues
AND regexp_replace(split_part(w.queue, chr(31), 1), '^dbosflow/pinned/[^/]*/', '') = ANY(:queues::text[])
-- ]
-- [id_prefix
AND starts_with(w.id, :id_prefix::text)
-- ]
-- [parent_id
AND w.parent_id = :parent_id::text
-- ]
-- [version
AND starts_with(w.queue, :pinned::text)
-- ]
-- [forked_from
AND w.forked_from = :forked_from::text
-- ]
-- [created_after
AND w.created_at >= :created_after::timestamptz
-- ]
-- [created_before
AND w.created_at < :created_before::timestamptz
-- ]
-- [started_after
AND w.started_at >= :started_after::timestamptz
-- ]
-- [started_before
AND w.started_at < :started_before::timestamptz
-- ]
-- [ended_after
AND w.ended_at >= :ended_after::timestamptz
-- ]
-- [ended_before
AND w.ended_at < :ended_before::timestamptz
-- ]
-- [attributes
AND (SELECT count(*) FROM dbosflow.attribute a
     WHERE a.workflow_id = w.id AND a.name = ANY(:attribute_names::text[])
       AND a.value = (:attribute_values::text[])[array_position(:attribute_names::text[], a.name)])
    = cardinality(:attribute_names::text[])
-- ]

-- name: record (the columns of a workflow `w`, as dbosflow.types.WorkflowInfo has them)
w.id, w.name, w.status, w.queue, w.priority, w.input::text AS input, w.output::text AS output, w.error::text AS error,
w.epoch, w.worker_id::text AS worker_id, w.parent_id, w.recoveries, w.created_at, w.started_at, w.ended_at,
w.forked_from, w.forked_turn, coalesce(w.iteration, 0) AS iteration,
(SELECT json_object_agg(a.name, a.value) FROM dbosflow.attribute a WHERE a.workflow_id = w.id)::text AS attributes

-- name: show (one workflow)
SELECT :record FROM dbosflow.workflow w WHERE w.id = :workflow_id;

-- name: page (the workflows of a source that meet the conditions, from a place on, and how far it has looked)
-- Always one row at least: the place of the last workflow that was looked at, and how many were.
WITH stretch AS MATERIALIZED (
    SELECT w.id, w.name, w.status, w.queue, w.parent_id, w.forked_from, w.created_at, w.started_at, w.ended_at
    FROM (:source) AS w
    WHERE (w.created_at, w.id) < (:before_at::timestamptz, :before_id::text)
    ORDER BY w.created_at DESC, w.id DESC
    LIMIT :scan::integer
), found AS MATERIALIZED (
    SELECT w.id, w.created_at
    FROM stretch w
    WHERE :conditions
    ORDER BY w.created_at DESC, w.id DESC
    LIMIT :limit::integer
), last AS (
    SELECT s.created_at, s.id FROM stretch s ORDER BY s.created_at, s.id LIMIT 1
)
SELECT (SELECT count(*) FROM stretch) AS scanned, (SELECT created_at FROM last) AS scanned_at,
       (SELECT id FROM last) AS scanned_id, listed.*
FROM (SELECT) AS one
LEFT JOIN (
    SELECT f.id AS found_id, f.created_at AS found_at
-- [records
           , record.*
-- ]
    FROM found f
-- [records
    CROSS JOIN LATERAL (
        SELECT :record
        FROM dbosflow.workflow w
        WHERE w.id = f.id
        OFFSET 0
    ) AS record
-- ]
) AS listed ON true
ORDER BY listed.found_at DESC, listed.found_id DESC;

-- name: count (the workflows that meet the conditions: all, or of each value of a column; reads the table)
SELECT
-- [by_status
       w.status
-- ]
-- [by_name
       w.name
-- ]
-- [by_queue
       regexp_replace(split_part(w.queue, chr(31), 1), '^dbosflow/pinned/[^/]*/', '')
-- ]
-- [in_all
       NULL::text
-- ]
       AS value, count(*) AS workflows
FROM dbosflow.workflow w
WHERE :conditions
GROUP BY 1
ORDER BY 2 DESC, 1;
