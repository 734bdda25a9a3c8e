-- Starts and messages in a user's own transaction. The statements of the first part run on the user's connection: they insert
-- rows that nobody else can wait for, and lock nothing else. Their parameters are cast, so that any driver can bind them.
-- The rest is for engines, which apply what is committed: messages by `send` in message.sql.

-- name: part_here (whether this is the engine's database)
here AS MATERIALIZED (
    SELECT (
-- [cluster
        (SELECT system_identifier FROM pg_control_system()) ||
-- ]
        '/' || (SELECT oid FROM pg_database WHERE datname = current_database())) = CAST(:database AS text) AS here
)

-- name: part_item (several starts, each an object in an array; none in another database)
item AS MATERIALIZED (
    SELECT i.item, i.number, CAST(i.item ->> 'id' AS text) AS id,
           coalesce(clock_timestamp() + CAST(i.item ->> 'delay' AS double precision) * interval '1 second',
                    to_timestamp(CAST(i.item ->> 'run_at' AS double precision))) AS due_at
    FROM here
    CROSS JOIN json_array_elements(CAST(CAST(:items AS text) AS json)) WITH ORDINALITY AS i (item, number)
    WHERE here
)

-- name: part_answer (what the caller is told; with the section `notify` hints are sent at the commit)
-- NOTIFY beside data takes an instance-wide lock until the commit is flushed, so only who asks for it gets it.
SELECT here, CAST(pg_current_xact_id() AS text) AS transaction
-- [notify
     , CAST(pg_notify(CAST(:channel AS text), CAST(:hint AS text)) AS text) AS hinted
-- ]
FROM here

-- name: start (a workflow, under an id that the engine has made, and that nobody else knows before the commit)
-- In another database than the engine's it writes nothing, and says so.
WITH :part_here, started AS (
    INSERT INTO dbosflow.workflow
        (id, name, status, queue, priority, input, input_streams, deadline_at, max_recoveries, wake_at, units)
    SELECT CAST(:workflow_id AS text), CAST(:name AS text),
           CASE WHEN due.at > clock_timestamp() THEN 'scheduled' ELSE 'queued' END, CAST(:queue AS text), CAST(:priority AS integer),
           CAST(CAST(:payload AS text) AS json),
           CASE WHEN CAST(:input_streams AS text) IS NOT NULL
                THEN ARRAY(SELECT json_array_elements_text(CAST(CAST(:input_streams AS text) AS json))) END,
           least(greatest(due.at, clock_timestamp()) + CAST(:timeout AS double precision) * interval '1 second',
                 to_timestamp(CAST(:deadline AS double precision))),
           CAST(:max_recoveries AS integer), CASE WHEN due.at > clock_timestamp() THEN due.at END, CAST(:units AS integer)
    FROM here
    CROSS JOIN LATERAL (
        SELECT coalesce(clock_timestamp() + CAST(:delay AS double precision) * interval '1 second',
                        to_timestamp(CAST(:run_at AS double precision))) AS at) AS due
    WHERE here
    RETURNING id
), attributed AS (
    INSERT INTO dbosflow.attribute (workflow_id, name, value)
    SELECT started.id, a.key, a.value
    FROM started CROSS JOIN json_each_text(CAST(CAST(:attributes AS text) AS json)) AS a (key, value)
)
:part_answer;

-- name: put (a row of the outbox: a start under a given id, or a message)
-- Its id is by the clock of the server, as those that SQL functions make: so the rows of all senders are in one order.
WITH :part_here, written AS (
    INSERT INTO dbosflow.outbox
        (workflow_id, id, name, queue, priority, input_streams, deadline_at, max_recoveries, wake_at, units, attributes,
         key, producer, payload)
    SELECT CAST(:workflow_id AS text), dbosflow.outbox_id(), CAST(:name AS text), CAST(:queue AS text),
           coalesce(CAST(:priority AS integer), 0),
           CASE WHEN CAST(:input_streams AS text) IS NOT NULL
                THEN ARRAY(SELECT json_array_elements_text(CAST(CAST(:input_streams AS text) AS json))) END,
           least(greatest(due.at, clock_timestamp()) + CAST(:timeout AS double precision) * interval '1 second',
                 to_timestamp(CAST(:deadline AS double precision))),
           CAST(:max_recoveries AS integer), due.at, CAST(:units AS integer), CAST(CAST(:attributes AS text) AS json),
           CAST(:key AS text), CAST(:producer AS text), CAST(CAST(:payload AS text) AS json)
    FROM here
    CROSS JOIN LATERAL (
        SELECT coalesce(clock_timestamp() + CAST(:delay AS double precision) * interval '1 second',
                        to_timestamp(CAST(:run_at AS double precision))) AS at) AS due
    WHERE here
)
:part_answer;

-- name: start_all (`start` for several, each an object in an array)
WITH :part_here, :part_item, started AS (
    INSERT INTO dbosflow.workflow
        (id, name, status, queue, priority, input, input_streams, deadline_at, max_recoveries, wake_at, units)
    SELECT id, item ->> 'name', CASE WHEN due_at > clock_timestamp() THEN 'scheduled' ELSE 'queued' END, item ->> 'queue',
           CAST(item ->> 'priority' AS integer), item -> 'input',
           CASE WHEN item ->> 'input_streams' IS NOT NULL
                THEN ARRAY(SELECT json_array_elements_text(item -> 'input_streams')) END,
           least(greatest(due_at, clock_timestamp()) + CAST(item ->> 'timeout' AS double precision) * interval '1 second',
                 to_timestamp(CAST(item ->> 'deadline' AS double precision))),
           CAST(item ->> 'max_recoveries' AS integer), CASE WHEN due_at > clock_timestamp() THEN due_at END,
           CAST(item ->> 'units' AS integer)
    FROM item
    ORDER BY id
), attributed AS (
    INSERT INTO dbosflow.attribute (workflow_id, name, value)
    SELECT item.id, a.key, a.value FROM item CROSS JOIN json_each_text(item.item -> 'attributes') AS a (key, value)
)
:part_answer;

-- name: put_all (`put` for several starts under given ids)
WITH :part_here, :part_item, written AS (
    INSERT INTO dbosflow.outbox
        (workflow_id, id, name, queue, priority, input_streams, deadline_at, max_recoveries, wake_at, units, attributes,
         payload)
    SELECT id, dbosflow.outbox_id(), item ->> 'name', item ->> 'queue', CAST(item ->> 'priority' AS integer),
           CASE WHEN item ->> 'input_streams' IS NOT NULL
                THEN ARRAY(SELECT json_array_elements_text(item -> 'input_streams')) END,
           least(greatest(due_at, clock_timestamp()) + CAST(item ->> 'timeout' AS double precision) * interval '1 second',
                 to_timestamp(CAST(item ->> 'deadline' AS double precision))),
           CAST(item ->> 'max_recoveries' AS integer), due_at, CAST(item ->> 'units' AS integer), item -> 'attributes',
           item -> 'input'
    FROM item
    ORDER BY number
)
:part_answer;

-- name: put_keyed (starts with keys, which are applied by the rules of dedup.sql, those with one key in this order)
WITH :part_here, :part_item, written AS (
    INSERT INTO dbosflow.outbox_start (queue, key, id, start_id, input, request)
    SELECT item ->> 'key_queue', item ->> 'key', dbosflow.outbox_id(), id, item -> 'input', item -> 'request'
    FROM item
    ORDER BY number
)
:part_answer;

-- name: database (what tells this database from all others; null: this role may not know the cluster)
SELECT (SELECT oid FROM pg_database WHERE datname = current_database())::text AS database,
       has_function_privilege('pg_control_system()', 'EXECUTE') AS knows_cluster;

-- name: cluster (the same for all servers of a cluster, and no other)
SELECT system_identifier::text AS cluster FROM pg_control_system();

-- name: over (the transactions that are over: their rows are visible to whoever looks from now on, or never)
SELECT x.id AS transaction, pg_xact_status(x.id::xid8) = 'committed' AS committed
FROM unnest(:transactions::text[]) AS x (id)
WHERE pg_xact_status(x.id::xid8) IS DISTINCT FROM 'in progress';

-- name: pending (who has rows in the outbox, after a place; a probe of the primary key for each, one if there are none)
-- And a row without an id if there are starts with keys.
WITH RECURSIVE target AS (
    (SELECT o.workflow_id, 1 AS number FROM dbosflow.outbox o
     WHERE o.workflow_id > :after::text ORDER BY o.workflow_id LIMIT 1)
    UNION ALL
    SELECT following.workflow_id, target.number + 1
    FROM target
    CROSS JOIN LATERAL (
        SELECT o.workflow_id FROM dbosflow.outbox o
        WHERE o.workflow_id > target.workflow_id ORDER BY o.workflow_id LIMIT 1
    ) AS following
    WHERE target.number < :limit::integer
)
SELECT t.workflow_id,
       (SELECT o.name IS NOT NULL FROM dbosflow.outbox o
        WHERE o.workflow_id = t.workflow_id
          AND (o.name IS NOT NULL OR (SELECT true FROM dbosflow.workflow w WHERE w.id = t.workflow_id))
        ORDER BY o.id LIMIT 1) IS TRUE AS starts
FROM target t
UNION ALL
SELECT NULL, true FROM (SELECT FROM dbosflow.outbox_start ORDER BY queue, key, id LIMIT 1) AS keyed
ORDER BY workflow_id NULLS LAST;

-- name: apply_starts (of each of these workflows its oldest row, if that is a start; in autocommit, like an enqueue)
-- A workflow that nobody knows yet is started first, whatever its messages' places are: they wait for it (see `send`).
-- Locks: the outbox rows, SKIP LOCKED, so of several engines one applies a row; and new rows of `workflow`, in the order of
-- their ids. The row of the outbox goes in the same statement: it is applied once, or it is there.
WITH taken AS MATERIALIZED (
    SELECT o.*
    FROM unnest(:ids::text[]) AS t (id)
    CROSS JOIN LATERAL (
        SELECT x.id FROM dbosflow.outbox x
        WHERE x.workflow_id = t.id
          AND (x.name IS NOT NULL OR (SELECT true FROM dbosflow.workflow w WHERE w.id = t.id))
        ORDER BY x.id LIMIT 1
    ) AS oldest
    CROSS JOIN LATERAL (
        SELECT x.* FROM dbosflow.outbox x
        WHERE x.workflow_id = t.id AND x.id = oldest.id AND x.name IS NOT NULL
        FOR UPDATE SKIP LOCKED
    ) AS o
), started AS (
    INSERT INTO dbosflow.workflow
        (id, name, status, queue, priority, input, input_streams, deadline_at, max_recoveries, wake_at, units)
    SELECT t.workflow_id, t.name, CASE WHEN t.wake_at > now() THEN 'scheduled' ELSE 'queued' END, t.queue, t.priority,
           t.payload, t.input_streams, t.deadline_at, t.max_recoveries, CASE WHEN t.wake_at > now() THEN t.wake_at END, t.units
    FROM taken t
    ORDER BY t.workflow_id
    ON CONFLICT (id) DO NOTHING
    RETURNING id
), attributed AS (
    INSERT INTO dbosflow.attribute (workflow_id, name, value)
    SELECT s.id, a.key, a.value
    FROM started s
    JOIN taken t ON t.workflow_id = s.id
    CROSS JOIN LATERAL json_each_text(t.attributes) AS a (key, value)
    ORDER BY s.id, a.key
    ON CONFLICT (workflow_id, name) DO NOTHING
), gone AS (
    DELETE FROM dbosflow.outbox o
    WHERE o.workflow_id = ANY(:ids::text[]) AND o.id = ANY(ARRAY(SELECT t.id FROM taken t))
)
SELECT t.workflow_id, t.name, t.queue, s.id IS NOT NULL AS is_new, w.name AS taken_by,
       CASE WHEN w.iteration IS NULL AND w.input::text <> t.payload::text THEN w.input::text END AS input,
       CASE WHEN w.iteration IS NULL AND w.input::text <> t.payload::text THEN t.payload::text END AS payload,
       extract(epoch FROM least(t.deadline_at, t.wake_at) - now())::double precision AS remaining
FROM taken t
LEFT JOIN started s ON s.id = t.workflow_id
LEFT JOIN LATERAL (SELECT o.name, o.input, o.iteration FROM dbosflow.workflow o WHERE o.id = t.workflow_id OFFSET 0) AS w ON true
ORDER BY t.workflow_id;

-- name: keyed (the oldest start of each key after a place, locked; a probe of the primary key for each)
-- SKIP LOCKED, and none behind a row that another engine has: so starts with one key are applied in their order.
WITH RECURSIVE place AS (
    (SELECT o.queue, o.key, 1 AS number FROM dbosflow.outbox_start o
     WHERE (o.queue, o.key) > (:after_queue::text, :after_key::text) ORDER BY o.queue, o.key LIMIT 1)
    UNION ALL
    SELECT following.queue, following.key, place.number + 1
    FROM place
    CROSS JOIN LATERAL (
        SELECT o.queue, o.key FROM dbosflow.outbox_start o
        WHERE (o.queue, o.key) > (place.queue, place.key) ORDER BY o.queue, o.key LIMIT 1
    ) AS following
    WHERE place.number < :limit::integer
)
SELECT p.queue, p.key, o.id, o.start_id, o.input::text AS input, o.request::text AS request,
       extract(epoch FROM o.created_at)::double precision AS created_at
FROM place p
CROSS JOIN LATERAL (
    SELECT x.id FROM dbosflow.outbox_start x WHERE x.queue = p.queue AND x.key = p.key ORDER BY x.id LIMIT 1
) AS oldest
LEFT JOIN LATERAL (
    SELECT x.* FROM dbosflow.outbox_start x
    WHERE x.queue = p.queue AND x.key = p.key AND x.id = oldest.id
    FOR UPDATE SKIP LOCKED
) AS o ON true
ORDER BY p.queue, p.key;

-- name: remove_keyed (starts that were applied or dropped, which this transaction has locked)
DELETE FROM dbosflow.outbox_start o
WHERE o.ctid = ANY(ARRAY(
    SELECT x.ctid
    FROM unnest(:queues::text[], :keys::text[], :ids::uuid[]) AS r (queue, key, id)
    CROSS JOIN LATERAL (
        SELECT s.ctid FROM dbosflow.outbox_start s WHERE s.queue = r.queue AND s.key = r.key AND s.id = r.id OFFSET 0
    ) AS x));

-- name: waiting_keyed (the start with a key that is in the outbox; index: outbox_start_start)
SELECT s.start_id AS id, s.request ->> 'name' AS name, 'queued' AS status, s.request ->> 'queue' AS queue,
       (s.request ->> 'priority')::integer AS priority, s.input::text AS input, s.created_at,
       s.request ->> 'attributes' AS attributes
FROM dbosflow.outbox_start s
WHERE s.start_id = :workflow_id
LIMIT 1;

-- name: waiting_start (the start of a workflow that is in the outbox, as a row of a listing; index: outbox_pkey)
SELECT o.workflow_id AS id, o.name, 'queued' AS status, o.queue, o.priority, o.payload::text AS input, o.created_at,
       o.deadline_at, o.attributes::text AS attributes
FROM dbosflow.outbox o
WHERE o.workflow_id = :workflow_id AND o.name IS NOT NULL
ORDER BY o.id
LIMIT 1;
