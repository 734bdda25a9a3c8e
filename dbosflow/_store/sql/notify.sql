-- name: notify (never in a transaction that writes: NOTIFY takes an instance-wide lock at commit)
SELECT pg_notify(r.channel, r.payload) FROM unnest(:channels::text[], :payloads::text[]) AS r (channel, payload);

-- name: notify_behind (a batch, in a transaction of its own on the same connection, whose settings are for batches)
-- It waits for no flush, and not long for the lock: the next batch waits for this statement.
SELECT set_config('synchronous_commit', 'off', true), set_config('lock_timeout', '10ms', true),
       pg_notify(r.channel, r.payload)
FROM unnest(:channels::text[], :payloads::text[]) AS r (channel, payload);
