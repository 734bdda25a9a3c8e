-- The queries of `dbosflow doctor`. They only read, and need no privilege that an engine does not need.

-- name: server (this session's place and clock; and the one setting of which the server's own value is too patient)
SELECT session_user AS role, current_database() AS database,
       extract(epoch FROM clock_timestamp())::double precision AS clock,
       pg_is_in_recovery() AS standby,
       (SELECT setting::double precision / 1000 FROM pg_catalog.pg_settings
        WHERE name = 'idle_in_transaction_session_timeout') AS idle_in_transaction_session_timeout;

-- name: connections (the limits, and the connections in use: all, of this database, of this role; without this session)
-- An ordinary role cannot see what other roles do, backend_type included. Sessions with a database count as clients then.
SELECT current_setting('max_connections')::integer AS max_connections,
       current_setting('superuser_reserved_connections')::integer
           + coalesce(nullif(current_setting('reserved_connections', true), ''), '0')::integer AS reserved,
       (SELECT rolconnlimit FROM pg_catalog.pg_roles WHERE rolname = session_user) AS role_limit,
       (SELECT datconnlimit FROM pg_catalog.pg_database WHERE datname = current_database()) AS database_limit,
       count(*) AS used,
       count(*) FILTER (WHERE a.usename = session_user) AS used_by_role,
       count(*) FILTER (WHERE a.datname = current_database()) AS used_by_database
FROM pg_catalog.pg_stat_activity a
WHERE a.pid <> pg_backend_pid() AND a.datid IS NOT NULL
  AND coalesce(a.backend_type, 'client backend') = 'client backend';

-- name: schema_rights (what this role may do with the schema; one row, even if there is no schema)
SELECT coalesce(has_schema_privilege(n.oid, 'USAGE'), false) AS may_use,
       CASE WHEN n.oid IS NULL THEN has_database_privilege(current_database(), 'CREATE')
            ELSE has_schema_privilege(n.oid, 'CREATE') AND NOT EXISTS (
                SELECT FROM pg_catalog.pg_class c
                WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'v') AND NOT pg_has_role(c.relowner, 'USAGE'))
       END AS may_migrate
FROM (SELECT) AS one LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = :schema;

-- name: missing_rights (the tables that this role may not use, and the privileges that it lacks)
SELECT c.relname AS "table", array_agg(r.name ORDER BY r.name) AS lacks
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL unnest(CASE WHEN c.relname IN ('schema_version', 'compatibility') THEN ARRAY['SELECT']
                               WHEN c.relname = 'retention' THEN ARRAY['SELECT', 'INSERT', 'UPDATE']
                               WHEN c.relname = 'step' THEN ARRAY['SELECT', 'INSERT', 'DELETE']
                               ELSE ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'] END) AS r (name)
WHERE n.nspname = :schema AND c.relkind = 'r' AND NOT has_table_privilege(c.oid, r.name)
GROUP BY c.relname
ORDER BY c.relname;

-- name: workers (the live workers with their numbers of runs; the dead ones that still own runs). Index: workflow_owned.
SELECT k.id::text AS id, k.state, k.host, k.pid, k.version, k.lease,
       extract(epoch FROM now() - k.renewed_at)::double precision AS silent, coalesce(owned.runs, 0) AS runs
FROM dbosflow.worker k
LEFT JOIN (
    SELECT worker_id, count(*) AS runs FROM dbosflow.workflow WHERE worker_id IS NOT NULL GROUP BY worker_id
) AS owned ON owned.worker_id = k.id
WHERE k.state = 'live' OR owned.runs > 0
ORDER BY k.host, k.pid, k.started_at;

-- name: queues (where workflows wait, for how long, and how many of them run). Index: workflow_queued, workflow_owned.
SELECT waiting.queue, waiting.workflows AS waiting, waiting.longest,
       (SELECT count(*) FROM dbosflow.workflow r
        WHERE split_part(r.queue, chr(31), 1) = waiting.queue AND r.worker_id IS NOT NULL) AS running
FROM (
    SELECT split_part(w.queue, chr(31), 1) AS queue, count(*) AS workflows,
           extract(epoch FROM now() - min(w.created_at))::double precision AS longest
    FROM dbosflow.workflow w WHERE w.status = 'queued' GROUP BY 1
) AS waiting
ORDER BY waiting.queue;

-- name: unknown_names (waiting workflows whose names no live worker of their queue knows, though one serves the queue)
-- A worker of older code does not say which names it knows. Index: workflow_queued.
SELECT waiting.queue, waiting.name, waiting.workflows AS waiting
FROM (
    SELECT split_part(w.queue, chr(31), 1) AS queue, w.name, count(*) AS workflows
    FROM dbosflow.workflow w WHERE w.status = 'queued' GROUP BY 1, 2
) AS waiting
WHERE EXISTS (SELECT FROM dbosflow.worker k WHERE k.state = 'live' AND waiting.queue = ANY(k.queues))
  AND NOT EXISTS (
      SELECT FROM dbosflow.worker k
      WHERE k.state = 'live' AND (k.names IS NULL OR (waiting.queue = ANY(k.queues) AND waiting.name = ANY(k.names))))
ORDER BY waiting.queue, waiting.name
LIMIT 100;

-- name: blocked (the number of parked workflows; scans the table, which only a query for a person may do)
SELECT count(*) AS blocked FROM dbosflow.workflow WHERE status = 'blocked';

-- name: suspended (how many workflows only wait, and for how many of them the time has come long ago; as above)
SELECT count(*) AS waiting, count(*) FILTER (WHERE wake_at < now() - interval '1 minute') AS overdue
FROM dbosflow.workflow WHERE status = 'waiting';

-- name: outbox (what waits there, counted up to a limit, since when, and for whom; it is empty, or nearly so)
SELECT count(*) AS "rows", extract(epoch FROM now() - min(o.created_at))::double precision AS longest,
       (SELECT array_agg(f.workflow_id) FROM (
           SELECT DISTINCT x.workflow_id FROM dbosflow.outbox x
           WHERE x.created_at < now() - :longest * interval '1 second' ORDER BY x.workflow_id LIMIT 3) AS f) AS ids
FROM (SELECT created_at FROM dbosflow.outbox LIMIT :limit) AS o;

-- name: retention (what a retention would remove, counted up to a limit; whether one is on. Index: workflow_created)
SELECT count(*) AS workflows,
       coalesce((SELECT r.due_at > now() - interval '1 hour' FROM dbosflow.retention r), false) AS is_on,
       (SELECT sum(pg_table_size(c.oid))::bigint
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = :schema AND c.relkind = 'r') AS bytes
FROM (
    SELECT FROM dbosflow.workflow w
    WHERE w.created_at < now() - :age * interval '1 second' AND w.ended_at < now() - :age * interval '1 second'
    ORDER BY w.created_at, w.id
    LIMIT :limit
) AS old;

-- name: schedules (each with how late its tick is, in seconds, and whether a live worker's code declares it)
SELECT s.name, s.module, s.overlap, s.paused_because, s.missed,
       CASE WHEN s.paused_at IS NULL THEN extract(epoch FROM now() - s.next_at)::double precision END AS late,
       EXISTS (SELECT FROM dbosflow.worker k
               WHERE k.state = 'live' AND k.schedules IS NOT NULL AND k.schedules -> s.name IS NOT NULL) AS declared,
       (SELECT o.id FROM unnest(s.open_ids) AS o (id)
        WHERE (SELECT w.status = 'blocked' FROM dbosflow.workflow w WHERE w.id = o.id) LIMIT 1) AS blocked
FROM dbosflow.schedule s
ORDER BY s.name;
