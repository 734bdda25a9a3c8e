-- Queries of the migrations and of each opening engine. `schema_version` is alembic's table: one row, the newest revision.

-- name: read_state
-- Each engine's first query; an empty database answers with "undefined table".
SELECT (SELECT max(version_num) FROM dbosflow.schema_version) AS revision,
       (SELECT max(oldest_code) FROM dbosflow.compatibility)  AS oldest_code;

-- name: begin_migration
-- Only one migration runs at a time in a database. The lock ends with its transaction, even if its process is killed, and
-- also behind a pooler. A role's timeouts are meant for its queries, and not for this wait. But a wait for the locks of
-- tables is short, because all other sessions queue up behind it; and a process that vanishes must not keep the locks.
SET LOCAL search_path = pg_catalog;
SET LOCAL statement_timeout = 0;
SET LOCAL lock_timeout = 0;
SET LOCAL default_table_access_method = heap;
SELECT set_config(name, '0', true) FROM pg_settings WHERE name = 'transaction_timeout';
SELECT pg_advisory_xact_lock(hashtextextended('dbosflow migrate', 0));
SET LOCAL lock_timeout = '3s';
SET LOCAL idle_in_transaction_session_timeout = '1min';

-- name: find_schema
-- CREATE SCHEMA IF NOT EXISTS requires the privilege to create a schema even if the schema exists.
SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = :schema);

-- name: unfinished (running workflows that have records, by name)
SELECT w.name, count(*) AS count
FROM dbosflow.workflow w
WHERE w.status NOT IN ('succeeded', 'failed', 'cancelled')
  AND EXISTS (SELECT FROM dbosflow.step s WHERE s.workflow_id = w.id)
GROUP BY w.name
ORDER BY w.name;
