-- What the migrations and each opening engine ask of a schema. `schema_version` is alembic's table: one row, the newest revision.

-- name: read_state
-- Each engine's first query; an empty database answers with "undefined table".
SELECT (SELECT max(version_num) FROM dbosflow.schema_version) AS revision,
       (SELECT max(oldest_code) FROM dbosflow.compatibility)  AS oldest_code;

-- name: begin_migration
-- One migration at a time in a database, whoever runs it. The lock goes with its transaction, also when its process is
-- killed, and also behind a pooler. A role's timeouts are meant for its queries, not for waiting here. But the locks of
-- tables are waited for with everybody who works queueing up behind: not long, and whoever vanishes holds none.
SET LOCAL search_path = pg_catalog;
SET LOCAL statement_timeout = 0;
SET LOCAL lock_timeout = 0;
SET LOCAL default_table_access_method = heap;
SELECT set_config(name, '0', true) FROM pg_settings WHERE name = 'transaction_timeout';
SELECT pg_advisory_xact_lock(hashtextextended('dbosflow migrate', 0));
SET LOCAL lock_timeout = '3s';
SET LOCAL idle_in_transaction_session_timeout = '1min';

-- name: find_schema
-- CREATE SCHEMA IF NOT EXISTS asks for the right to create one even where it exists.
SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = :schema);

-- name: unfinished (workflows with records that have not ended, by name)
SELECT w.name, count(*) AS count
FROM dbosflow.workflow w
WHERE w.status NOT IN ('succeeded', 'failed', 'cancelled')
  AND EXISTS (SELECT FROM dbosflow.step s WHERE s.workflow_id = w.id)
GROUP BY w.name
ORDER BY w.name;
