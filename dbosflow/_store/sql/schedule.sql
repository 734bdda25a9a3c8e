-- Schedules. The table is small, and a tick is one statement: it moves the schedule on and starts the workflow, or does neither.
-- `now` is the database's clock; tests give another one.

-- name: next_due (seconds until a schedule has something to do, 0 or less if one has; and whether a tick waits for an end)
-- Indexes: the three of the table, of which each gives its first entry.
SELECT extract(epoch FROM least(
    (SELECT s.next_at FROM dbosflow.schedule s
     WHERE s.paused_at IS NULL AND s.next_at IS NOT NULL ORDER BY s.next_at LIMIT 1),
    (SELECT clock.now FROM dbosflow.schedule s
     WHERE s.paused_at IS NULL AND s.checked_at > clock.now + interval '1 second' LIMIT 1)
) - clock.now)::double precision AS seconds,
       (SELECT true FROM dbosflow.schedule s WHERE s.buffered_at IS NOT NULL LIMIT 1) IS TRUE AS somebody_waits
FROM (SELECT coalesce(:now::timestamptz, now()) AS now) AS clock;

-- name: part_schedule
s.name, s.version, s.workflow, s.queue, s.priority, s.input::text AS input, s.tick_parameter, s.input_streams, s.timeout,
s.max_recoveries, s.units, s.attributes::text AS attributes, s.cron, s.every, s.timezone, s.overlap, s.catch_up, s.jitter, s.module,
s.fingerprint, s.fingerprints, s.paused_at, s.paused_because, s.next_at, s.checked_at, s.set_at, s.last_at, s.missed, s.buffered_at,
s.open_ids, s.created_at

-- name: part_open (the workflows that the schedule has started and that have not ended)
ARRAY(
    SELECT o.id FROM unnest(s.open_ids) WITH ORDINALITY AS o (id, place)
    WHERE (SELECT w.status NOT IN ('succeeded', 'failed', 'cancelled') FROM dbosflow.workflow w WHERE w.id = o.id)
    ORDER BY o.place)

-- name: look (the schedules that have something to do, with the clock; and which of its workflows nobody has asked to end)
-- What is due comes first. A row from a clock that was ahead is there too: its next tick may be too far away.
SELECT :part_schedule, clock.now, :part_open AS running, ARRAY(
           SELECT o.id FROM unnest(s.open_ids) AS o (id)
           WHERE (SELECT w.cancel_requested_at IS NULL FROM dbosflow.workflow w WHERE w.id = o.id)) AS unasked
FROM (SELECT coalesce(:now::timestamptz, now()) AS now) AS clock
JOIN dbosflow.schedule s ON s.paused_at IS NULL AND (
    s.next_at <= clock.now OR s.buffered_at IS NOT NULL OR s.checked_at > clock.now + interval '1 second')
ORDER BY s.next_at
LIMIT :limit::integer;

-- name: tick (moves a schedule on, and starts the workflows of its ticks, unless it was changed since it was looked at)
-- The compare-and-set of `version` gates everything. Who starts a workflow of the schedule changes `version`; so whoever sees
-- this version sees all those workflows, and `running` misses none. A workflow that ends in this instant may still count.
-- Locks: the schedule, SKIP LOCKED, since whoever has it does the same; then new rows of `workflow`, in the order of their ids.
-- The candidates are the tick that waits, then those that are due, the oldest first. One whose workflow is there is none.
WITH seen AS MATERIALIZED (
    SELECT s.name, s.overlap, :part_open AS running
    FROM dbosflow.schedule s
    WHERE s.name = :name::text AND s.version = :version::uuid AND s.paused_at IS NULL
    FOR UPDATE SKIP LOCKED
), candidate AS MATERIALIZED (
    SELECT c.*, row_number() OVER (ORDER BY c.at) AS place, count(*) OVER () AS total
    FROM unnest(:ids::text[], :ats::timestamptz[], :begins::timestamptz[], :inputs::text[]) AS c (id, at, begins_at, input)
    WHERE (SELECT true FROM dbosflow.workflow w WHERE w.id = c.id) IS NULL
), decided AS MATERIALIZED (
    SELECT c.*, CASE
        WHEN s.overlap = 'allow' THEN 'start'
        WHEN s.overlap = 'cancel_running' AND c.place < c.total THEN 'drop'
        WHEN cardinality(s.running) = 0 AND (c.place = 1 OR s.overlap = 'cancel_running') THEN 'start'
        WHEN s.overlap = 'buffer_one' AND c.place = CASE WHEN cardinality(s.running) = 0 THEN 2 ELSE 1 END THEN 'buffer'
        WHEN s.overlap = 'cancel_running' THEN 'buffer'
        ELSE 'drop' END AS decision
    FROM candidate c
    CROSS JOIN seen s
), total AS MATERIALIZED (
    SELECT max(d.at) FILTER (WHERE d.decision = 'start') AS last_at, min(d.at) FILTER (WHERE d.decision = 'buffer') AS buffered_at,
           coalesce(array_agg(d.id ORDER BY d.at) FILTER (WHERE d.decision = 'start'), '{}') AS ids
    FROM decided d
), moved AS (
    UPDATE dbosflow.schedule s
    SET version = gen_random_uuid(), next_at = :next_at::timestamptz, checked_at = :now::timestamptz,
        last_at = coalesce(t.last_at, s.last_at), buffered_at = t.buffered_at,
        open_ids = (seen.running || t.ids)[greatest(cardinality(seen.running || t.ids) - 99, 1):],
        missed = CASE WHEN t.last_at IS NULL THEN s.missed + :left_out::integer ELSE 0 END + (
            SELECT count(*) FROM decided d WHERE d.decision = 'drop' AND (t.last_at IS NULL OR d.at > t.last_at))
    FROM seen
    CROSS JOIN total t
    WHERE s.name = seen.name AND s.version = :version::uuid
    RETURNING s.*
), :part_start
SELECT m.queue, m.buffered_at, ARRAY(SELECT id FROM started) AS started
FROM moved m;

-- name: part_start (inserts the decided workflows of a schedule that was moved on)
started AS (
    INSERT INTO dbosflow.workflow
        (id, name, status, queue, priority, input, input_streams, deadline_at, max_recoveries, wake_at, units)
    SELECT d.id, m.workflow, CASE WHEN d.begins_at > :now::timestamptz THEN 'scheduled' ELSE 'queued' END, m.queue, m.priority,
           d.input::json, m.input_streams, greatest(d.begins_at, now()) + m.timeout * interval '1 second', m.max_recoveries,
           CASE WHEN d.begins_at > :now::timestamptz THEN d.begins_at END, m.units
    FROM moved m
    JOIN decided d ON d.decision = 'start'
    ORDER BY d.id
    ON CONFLICT (id) DO NOTHING
    RETURNING id
), attributed AS (
    INSERT INTO dbosflow.attribute (workflow_id, name, value)
    SELECT s.id, a.key, a.value
    FROM started s
    CROSS JOIN moved m
    CROSS JOIN LATERAL json_each_text(m.attributes) AS a (key, value)
    ORDER BY s.id, a.key
    ON CONFLICT (workflow_id, name) DO NOTHING
)

-- name: start (workflows of a schedule besides its times, unless they are there; runs after lock)
-- With `counted` they count as running for the ticks that follow.
WITH decided AS MATERIALIZED (
    SELECT c.id, :now::timestamptz AS begins_at, c.input, 'start' AS decision
    FROM unnest(:ids::text[], :inputs::text[]) AS c (id, input)
), moved AS (
    UPDATE dbosflow.schedule s
    SET version = gen_random_uuid(),
        open_ids = CASE WHEN :counted::boolean THEN (s.open_ids || :ids)[greatest(cardinality(s.open_ids || :ids) - 99, 1):]
                        ELSE s.open_ids END
    WHERE s.name = :name::text
    RETURNING s.*
), :part_start
SELECT m.queue, ARRAY(SELECT id FROM started) AS started
FROM moved m;

-- name: lock (the first statement of each transaction that changes a schedule; with the clock)
SELECT :part_schedule, coalesce(:now::timestamptz, now()) AS now
FROM dbosflow.schedule s
WHERE s.name = :name::text
FOR UPDATE;

-- name: add (no row: there is one of this name)
INSERT INTO dbosflow.schedule
    (name, workflow, queue, priority, input, tick_parameter, input_streams, timeout, max_recoveries, units, attributes, cron,
     every, timezone, overlap, catch_up, jitter, module, fingerprint, fingerprints, next_at, checked_at,
     set_at, created_at)
VALUES (:name::text, :workflow::text, :queue::text, :priority::integer, :input::json, :tick_parameter::text,
        :input_streams::text[], :timeout::double precision, :max_recoveries::integer, :units::integer, :attributes::json,
        :cron::text, :every::double precision, :timezone::text, :overlap::text, :catch_up::double precision, :jitter::double precision,
        :module::text, :fingerprint::text, :fingerprints::text[], :next_at::timestamptz, :now::timestamptz,
        :now::timestamptz, :now::timestamptz)
ON CONFLICT (name) DO NOTHING
RETURNING name;

-- name: change (what a schedule is; runs after lock)
UPDATE dbosflow.schedule s
SET version = gen_random_uuid(), workflow = :workflow::text, queue = :queue::text, priority = :priority::integer,
    input = :input::json, tick_parameter = :tick_parameter::text, input_streams = :input_streams::text[],
    timeout = :timeout::double precision, max_recoveries = :max_recoveries::integer, units = :units::integer,
    attributes = :attributes::json, cron = :cron::text, every = :every::double precision, timezone = :timezone::text, overlap = :overlap::text,
    catch_up = :catch_up::double precision, jitter = :jitter::double precision, module = :module::text,
    fingerprint = :fingerprint::text, fingerprints = :fingerprints::text[], next_at = :next_at::timestamptz,
    checked_at = :checked_at::timestamptz, set_at = :set_at::timestamptz,
    paused_at = CASE WHEN s.paused_because = 'gone' THEN NULL ELSE s.paused_at END,
    paused_because = CASE WHEN s.paused_because = 'gone' THEN NULL ELSE s.paused_because END,
    buffered_at = CASE WHEN :overlap IN ('buffer_one', 'cancel_running') THEN s.buffered_at END
WHERE s.name = :name::text;

-- name: pause (a tick that waits is dropped; runs after lock)
UPDATE dbosflow.schedule s
SET version = gen_random_uuid(), paused_at = coalesce(s.paused_at, :now::timestamptz), paused_because = :because::text,
    missed = s.missed + CASE WHEN s.buffered_at IS NULL THEN 0 ELSE 1 END, buffered_at = NULL
WHERE s.name = :name::text;

-- name: resume (runs after lock)
UPDATE dbosflow.schedule s
SET version = gen_random_uuid(), paused_at = NULL, paused_because = NULL, next_at = :next_at::timestamptz,
    checked_at = :now::timestamptz, set_at = :now::timestamptz
WHERE s.name = :name::text;

-- name: delete
DELETE FROM dbosflow.schedule WHERE name = :name::text RETURNING name;

-- name: list (all, or the one of a name)
SELECT :part_schedule, :part_open AS running
FROM dbosflow.schedule s
WHERE :name::text IS NULL OR s.name = :name::text
ORDER BY s.name;

-- name: clock
SELECT coalesce(:now::timestamptz, now()) AS now;

-- name: of_code (the schedules that code declares, and those of these names)
SELECT :part_schedule, now() AS now
FROM dbosflow.schedule s
WHERE s.module IS NOT NULL OR s.name = ANY(:names::text[]);

-- name: declared (what the live workers' code declares; whoever is silent is marked dead by others)
SELECT DISTINCT k.schedules::text AS schedules
FROM dbosflow.worker k
WHERE k.state = 'live' AND k.schedules IS NOT NULL;
