-- What a session is set to. See dbosflow/_sessions.py. All names are qualified: the session's own path is not known yet.

-- name: settings (what is in force; null for what this server does not know)
SELECT s.name, pg_catalog.current_setting(s.name, true) AS value FROM pg_catalog.unnest(:names::text[]) AS s (name);

-- name: set (until the session ends: only where it is ours)
SELECT pg_catalog.set_config((:names::text[])[n], (:values::text[])[n], false)
FROM pg_catalog.generate_subscripts(:names::text[], 1) AS n;
