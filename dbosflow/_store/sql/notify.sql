-- name: notify (never in a transaction that writes: NOTIFY takes an instance-wide lock at commit)
SELECT pg_notify(r.channel, r.payload) FROM unnest(:channels::text[], :payloads::text[]) AS r (channel, payload);
