-- The settings of a session. See dbosflow/_sessions.py. All names are qualified: the search path is not known yet.

-- name: settings (the settings in force; null for those that this server does not have)
SELECT s.name, pg_catalog.current_setting(s.name, true) AS value FROM pg_catalog.unnest(:names::text[]) AS s (name);

-- name: set (until the session ends; only for sessions of our own)
SELECT pg_catalog.set_config((:names::text[])[n], (:values::text[])[n], false)
FROM pg_catalog.generate_subscripts(:names::text[], 1) AS n;
