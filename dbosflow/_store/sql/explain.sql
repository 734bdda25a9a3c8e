-- What a workflow waits for, as far as rows tell. All of these read only, for a person who asks for one workflow.

-- name: subject (the workflow, with its owner, if it has one)
SELECT w.id, w.name, w.status, w.queue, w.priority, w.epoch, coalesce(w.units, 1) AS units, w.recoveries, w.error::text AS error, w.created_at,
       w.cancel_requested_at IS NOT NULL AS cancel_requested, w.cancel_reason, w.timed_out, w.wake_at, w.deadline_at, w.ended_at, now() AS now,
       k.state AS owner_state, k.host AS owner_host, k.pid AS owner_pid, k.lease AS owner_lease,
       extract(epoch FROM now() - k.renewed_at)::double precision AS owner_silent
FROM dbosflow.workflow w
LEFT JOIN dbosflow.worker k ON k.id = w.worker_id
WHERE w.id = :workflow_id;

-- name: workers (that are live, and what each has said that it serves; null: its code is too old to say so)
SELECT k.queues, k.names
FROM dbosflow.worker k
WHERE k.state = 'live' AND now() - k.renewed_at < k.lease * interval '1 second';

-- name: queue (how many are before a workflow in its queue, and how many run, up to a limit; indexes: workflow_queued,
-- workflow_owned)
WITH RECURSIVE waiting AS (
    (SELECT q.name FROM dbosflow.workflow q WHERE q.status = 'queued' AND q.queue = :queue ORDER BY q.queue, q.name LIMIT 1)
    UNION ALL
    SELECT (SELECT q.name FROM dbosflow.workflow q
            WHERE q.status = 'queued' AND q.queue = :queue AND q.name > w.name ORDER BY q.queue, q.name LIMIT 1)
    FROM waiting w WHERE w.name IS NOT NULL
)
SELECT (SELECT count(*) FROM (
           SELECT FROM waiting w
           CROSS JOIN LATERAL (
               SELECT FROM dbosflow.workflow q
               WHERE q.status = 'queued' AND q.queue = :queue AND q.name = w.name AND q.recoveries < 3
                 AND (q.priority, q.created_at, q.id) < (:priority, :created_at, :workflow_id)
               LIMIT :limit) AS q
           LIMIT :limit) AS before) AS ahead,
       (SELECT count(*) FROM (
           SELECT FROM dbosflow.workflow r WHERE r.worker_id IS NOT NULL AND r.queue = :queue LIMIT :limit) AS slots) AS running;

-- name: limits (of the workflow's queue, and what of it runs; indexes: queue_pkey, bucket_pkey, partition_rate_pkey, workflow_slot)
-- `rate_ends_at`, `partition_rate_ends_at`: when the rate has units for the workflow, if it has none now: as in queue.sql.
SELECT q.name, q.concurrency, q.worker_concurrency, q.paused AND coalesce(q.pause_ends_at > now(), true) AS paused, q.pause_ends_at,
       rate.count AS rate_count, rate.period AS rate_period, rate.bucket, rate.is_paused AS bucket_paused,
       rate.pause_ends_at AS bucket_pause_ends_at, CASE WHEN rate.ends_at > now() THEN rate.ends_at END AS rate_ends_at,
       (SELECT count(*) FROM dbosflow.workflow r
        WHERE r.status = 'running' AND r.slot IS NOT NULL AND r.slot = q.name) AS running,
       q.partition_concurrency, q.partition_rate_count, q.partition_rate_period, (
           SELECT CASE WHEN r.ends_at > now() THEN r.ends_at END
           FROM (SELECT o.next_at - greatest(o.moved_at - now(), interval '0')
                        - (q.partition_rate_burst - least(:units, q.partition_rate_burst))
                          * q.partition_rate_period / q.partition_rate_count * interval '1 second' AS ends_at
                 FROM dbosflow.partition_rate o
                 WHERE o.queue = q.name AND o.key = :partition::text AND q.partition_rate_count IS NOT NULL) AS r
       ) AS partition_rate_ends_at,
       (SELECT count(*) FROM dbosflow.workflow r
        WHERE r.status = 'running' AND r.slot IS NOT NULL AND r.slot = q.name
          AND split_part(r.queue, chr(31), 2) = :partition::text) AS partition_running
FROM dbosflow.queue q
CROSS JOIN LATERAL (
    SELECT r.*, r.next_at - greatest(r.moved_at - now(), interval '0')
                - (r.burst - least(:units, r.burst)) * r.period / r.count * interval '1 second' AS ends_at
    FROM (
        SELECT b.name AS bucket, coalesce(b.rate_count, q.rate_count) AS count, coalesce(b.rate_period, q.rate_period) AS period,
               coalesce(b.rate_burst, q.rate_burst) AS burst, coalesce(b.rate_next_at, q.rate_next_at) AS next_at,
               coalesce(b.rate_moved_at, q.rate_moved_at) AS moved_at, b.pause_ends_at,
               b.paused AND coalesce(b.pause_ends_at > now(), true) AS is_paused
        FROM (SELECT q.bucket AS name) AS own
        LEFT JOIN dbosflow.bucket b ON b.name = own.name
    ) AS r
) AS rate
WHERE q.name = :name;

-- name: timers (sleeps, and operations with a deadline, whose time has not come and that are not over; index: step_pkey)
SELECT s.key, s.kind, s.wake_at
FROM dbosflow.step s
WHERE s.workflow_id = :workflow_id AND s.kind IN ('sleep', 'until') AND s.wake_at > now()
  AND NOT EXISTS (
      SELECT FROM dbosflow.step o
      WHERE o.workflow_id = s.workflow_id
        AND o.key IN (s.key || '/given-up', CASE s.kind WHEN 'until' THEN left(s.key, -length('/until')) END))
ORDER BY s.wake_at, s.key
LIMIT :limit;

-- name: retries (steps of which attempts have failed, and which have no outcome yet; the last attempt of each)
SELECT DISTINCT ON (s.key) s.key, count(*) OVER (PARTITION BY s.key) AS failures, s.error::text AS error, s.wake_at
FROM (
    SELECT left(a.key, -length(a.attempt) - 1) AS key, a.seq, a.error, a.wake_at
    FROM dbosflow.step a
    WHERE a.workflow_id = :workflow_id AND a.kind = 'attempt'
) AS s
WHERE NOT EXISTS (
    SELECT FROM dbosflow.step o WHERE o.workflow_id = :workflow_id AND o.key IN (s.key, s.key || '/given-up'))
ORDER BY s.key, s.seq DESC
LIMIT :limit;

-- name: bodies (attempts of steps that have written to streams, and are neither on record nor rolled back)
-- Looks at the last blocks of each stream. Index: stream_block_pkey.
WITH RECURSIVE stream AS (
    (SELECT b.key FROM dbosflow.stream_block b WHERE b.workflow_id = :workflow_id ORDER BY b.key LIMIT 1)
    UNION ALL
    SELECT (SELECT b.key FROM dbosflow.stream_block b
            WHERE b.workflow_id = :workflow_id AND b.key > stream.key ORDER BY b.key LIMIT 1)
    FROM stream WHERE stream.key IS NOT NULL
)
SELECT DISTINCT left(tail.producer, -length(tail.attempt) - 1) AS key, tail.attempt
FROM stream
CROSS JOIN LATERAL (
    SELECT b.producer, b.attempt
    FROM dbosflow.stream_block b
    WHERE b.workflow_id = :workflow_id AND b.key = stream.key AND b.kind = 'values'
    ORDER BY b."offset" DESC
    LIMIT 20
) AS tail
WHERE tail.attempt IS NOT NULL
  AND NOT EXISTS (
      SELECT FROM dbosflow.step s
      WHERE s.workflow_id = :workflow_id AND s.key = left(tail.producer, -length(tail.attempt) - 1))
  AND NOT EXISTS (
      SELECT FROM dbosflow.stream_block r
      WHERE r.workflow_id = :workflow_id AND r.key = stream.key AND r.kind = 'rollback' AND r.producer = tail.producer)
ORDER BY key
LIMIT :limit;

-- name: waiters (what a suspended workflow waits for, besides a time; index: waiter_pkey)
SELECT DISTINCT r.target_id, r.key, t.status
FROM dbosflow.waiter r
LEFT JOIN dbosflow.workflow t ON t.id = r.target_id
WHERE r.workflow_id = :workflow_id
ORDER BY r.target_id, r.key
LIMIT :limit;

-- name: outbox (messages to it that are committed, and not sent yet; index: outbox_pkey)
SELECT o.key, count(*) AS messages, min(o.created_at) AS since
FROM dbosflow.outbox o
WHERE o.workflow_id = :workflow_id AND o.key IS NOT NULL
GROUP BY o.key
ORDER BY since
LIMIT :limit;

-- name: children (that it has started, that have not ended, and whose outcome it has not received)
SELECT c.id, c.name, c.status, count(*) OVER () AS workflows
FROM dbosflow.step s
JOIN dbosflow.workflow c ON c.id = s.child_id
WHERE s.workflow_id = :workflow_id AND s.kind IN ('child', 'mapped') AND c.ended_at IS NULL
ORDER BY s.seq
LIMIT :limit;
