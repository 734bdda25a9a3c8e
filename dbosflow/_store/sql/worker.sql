-- name: register
INSERT INTO dbosflow.worker
    (id, lease, host, boot_id, pid_namespace, pid, process_started_at, version, queues, names, version_name,
     schedules)
VALUES (:id, :lease, :host, :boot_id, :pid_namespace, :pid, :process_started_at, :version, :queues::text[], :names::text[],
        :version_name::text, :schedules::json);

-- name: renew (updates no key column, so it does not wait for batches that hold the row FOR KEY SHARE)
UPDATE dbosflow.worker SET renewed_at = now() WHERE id = ANY(:ids) AND state = 'live' RETURNING id;

-- name: serve (like renew, it waits for no batch)
UPDATE dbosflow.worker SET queues = :queues::text[], names = :names::text[], version_name = :version_name::text,
       schedules = :schedules::json
WHERE id = :id AND state = 'live';

-- name: release (by the worker itself, after its last batch)
-- FOR UPDATE, like every death: the server may still be writing a batch whose connection was lost.
UPDATE dbosflow.worker SET state = 'dead', ended_at = now(), ended_because = 'released'
WHERE id = (SELECT id FROM dbosflow.worker WHERE id = :id AND state = 'live' FOR UPDATE);

-- name: end_quarantine (of the run that the worker had claimed alone; by the worker itself)
WITH freed AS (
    UPDATE dbosflow.worker SET suspect = NULL WHERE id = :id AND suspect = :workflow_id::text
)
UPDATE dbosflow.workflow SET recoveries = 0
WHERE id = :workflow_id::text AND worker_id = :id AND :acquitted::boolean;

-- name: survey (every live worker, with the facts for the guards of an expiry)
SELECT k.id, k.renewed_at, k.lease, k.host, k.boot_id, k.pid_namespace, k.pid, k.process_started_at,
       extract(epoch FROM now() - k.renewed_at)::double precision AS silent,
       extract(epoch FROM now())::double precision AS clock,
       extract(epoch FROM now() - pg_postmaster_start_time())::double precision AS server_age
FROM dbosflow.worker k WHERE k.state = 'live';

-- name: versions (of the live workers, and where they are)
SELECT DISTINCT k.host, k.pid, k.version FROM dbosflow.worker k WHERE k.state = 'live' ORDER BY k.host, k.pid;

-- name: mark_dead (never waits: a worker that is writing a batch is skipped and tried again)
-- FOR UPDATE, because a plain UPDATE of `state` is not held up by the KEY SHARE lock of a running batch.
WITH gone AS MATERIALIZED (
    SELECT k.id
    FROM unnest(:ids::uuid[], :renewed::timestamptz[]) AS seen (id, renewed_at)
    JOIN dbosflow.worker k ON k.id = seen.id
    WHERE k.state = 'live' AND k.renewed_at = seen.renewed_at
    FOR UPDATE OF k SKIP LOCKED
)
UPDATE dbosflow.worker k SET state = 'dead', ended_at = now(), ended_because = :because
FROM gone WHERE k.id = gone.id
RETURNING k.id;

-- name: forget (deletes workers that died long ago and own nothing)
DELETE FROM dbosflow.worker k
WHERE k.state = 'dead' AND k.ended_at < now() - interval '1 day'
  AND NOT EXISTS (SELECT FROM dbosflow.workflow w WHERE w.worker_id = k.id);

-- name: of_place (the workers of one machine or container, for a health check; live ones first, the newest of them first)
SELECT k.pid, k.process_started_at, k.state = 'live' AS live, k.lease, k.ended_because,
       extract(epoch FROM now() - k.renewed_at)::double precision AS silent
FROM dbosflow.worker k
WHERE k.host = :host AND k.boot_id IS NOT DISTINCT FROM :boot_id
  AND k.pid_namespace IS NOT DISTINCT FROM :pid_namespace AND (:pid::integer IS NULL OR k.pid = :pid)
ORDER BY live DESC, k.renewed_at DESC;

-- name: status (the live workers, with a row for each workflow that they run; index: workflow_owned)
SELECT k.id::text AS id, k.host, k.pid, k.version, k.version_name, coalesce(k.queues, '{}') AS queues, k.started_at, k.lease,
       extract(epoch FROM now() - k.renewed_at)::double precision AS silent,
       r.id AS workflow_id, r.name AS workflow, r.queue AS workflow_queue, r.began_at,
       extract(epoch FROM now() - r.began_at)::double precision AS age
FROM dbosflow.worker k
LEFT JOIN LATERAL (
    SELECT w.id, w.name, w.queue, coalesce(w.started_at, w.created_at) AS began_at
    FROM dbosflow.workflow w
    WHERE w.worker_id BETWEEN k.id AND k.id AND w.status = 'running'
) AS r ON true
WHERE k.state = 'live'
ORDER BY k.host, k.pid, k.id, r.began_at, r.id;
