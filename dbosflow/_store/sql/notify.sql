-- name: notify (never in a transaction that writes: NOTIFY takes an instance-wide lock at commit)
SELECT pg_notify(:channel, payload) FROM unnest(:payloads::text[]) AS payload;
