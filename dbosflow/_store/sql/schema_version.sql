-- What the migrations and each opening engine ask of a schema. `schema_version` is alembic's table: one row, the newest revision.

-- name: read_state
-- Each engine's first query; an empty database answers with "undefined table".
SELECT (SELECT max(version_num) FROM dbosflow.schema_version) AS revision,
       (SELECT max(oldest_code) FROM dbosflow.compatibility)  AS oldest_code;

-- name: begin_migration
-- One migration at a time in a database, whoever runs it. The lock goes with its transaction, also when its process is
-- killed, and also behind a pooler. A role's timeouts are meant for its queries, not for waiting here.
SET LOCAL statement_timeout = 0;
SET LOCAL lock_timeout = 0;
SELECT pg_advisory_xact_lock(hashtextextended('dbosflow migrate', 0));

-- name: find_schema
-- CREATE SCHEMA IF NOT EXISTS asks for the right to create one even where it exists.
SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = :schema);
