-- What a user's own transaction has asked for: starts under given ids, and messages. A row becomes visible with the commit,
-- and an engine applies it in a statement of its own: so an open transaction never holds an id or a place in a stream.
CREATE TABLE dbosflow.outbox (
    workflow_id    text        NOT NULL,                   -- that is to be started, or gets the message
    id             uuid        NOT NULL,                   -- in the order in which the sender has made them
    name           text,                                   -- for a start: of the workflow
    queue          text,
    priority       integer     NOT NULL DEFAULT 0,
    input_streams  text[],
    deadline_at    timestamptz,
    max_recoveries integer,
    wake_at        timestamptz,                            -- when it may begin
    attributes     json,                                   -- names, and the JSON of their values as texts
    key            text,                                   -- for a message: of its inbox
    producer       text,                                   -- for a message with an idempotency key
    payload        json        NOT NULL,                   -- the arguments by parameter name, or the message
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (workflow_id, id),
    CONSTRAINT either_start_or_message CHECK ((name IS NULL) <> (key IS NULL) AND (name IS NULL) = (queue IS NULL)),
    CONSTRAINT workflow_id_of_1_to_512_bytes CHECK (octet_length(workflow_id) BETWEEN 1 AND 512),
    CONSTRAINT name_of_1_to_512_bytes CHECK (octet_length(name) BETWEEN 1 AND 512),
    CONSTRAINT queue_of_up_to_700_bytes CHECK (octet_length(queue) <= 700),
    CONSTRAINT topic_of_up_to_472_bytes CHECK (starts_with(key, 'dbosflow/inbox/') AND octet_length(key) <= 487),
    CONSTRAINT idempotency_key_of_1_to_512_bytes CHECK (octet_length(producer) BETWEEN 3 AND 514),
    CONSTRAINT arguments_are_an_object CHECK (name IS NULL OR json_typeof(payload) = 'object'),
    CONSTRAINT payload_of_up_to_256_mib CHECK (octet_length(payload::text) <= 268435456)
);

-- The id of a row of the outbox: a UUID of version 7 (RFC 9562), by the server's clock, and greater than the one before in
-- this session: so the rows of a session are applied in its order.
CREATE FUNCTION dbosflow.outbox_id() RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY INVOKER
BEGIN ATOMIC
    SELECT (lpad(to_hex(t.tick >> 12), 12, '0') || '7' || lpad(to_hex(t.tick & 4095), 3, '0')
            || substr(replace(gen_random_uuid()::text, '-', ''), 17))::uuid
    FROM (
        SELECT set_config('dbosflow.outbox_tick', greatest(
            (extract(epoch FROM clock_timestamp()) * 4096000)::bigint,
            coalesce(nullif(current_setting('dbosflow.outbox_tick', true), '')::bigint, 0) + 1)::text, false)::bigint AS tick
    ) AS t;
END;

-- For SQL, triggers and other languages: starts a workflow once the transaction has committed, and returns its id. With an
-- id of a workflow that is there, nothing happens.
CREATE FUNCTION dbosflow.start_workflow(
    name text, args jsonb DEFAULT '{}', queue text DEFAULT 'default', workflow_id text DEFAULT NULL,
    priority integer DEFAULT 0, timeout interval DEFAULT NULL, inputs text[] DEFAULT NULL
) RETURNS text
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY INVOKER
BEGIN ATOMIC
    INSERT INTO dbosflow.outbox (workflow_id, id, name, queue, priority, input_streams, deadline_at, payload)
    SELECT coalesce(start_workflow.workflow_id, dbosflow.outbox_id()::text), dbosflow.outbox_id(), start_workflow.name,
           start_workflow.queue, coalesce(start_workflow.priority, 0), start_workflow.inputs,
           clock_timestamp() + start_workflow.timeout, start_workflow.args::json
    RETURNING outbox.workflow_id;
END;

-- For SQL, triggers and other languages: sends a message to a workflow once the transaction has committed.
CREATE FUNCTION dbosflow.send_message(
    workflow_id text, value jsonb, topic text DEFAULT '', idempotency_key text DEFAULT NULL
) RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY INVOKER
BEGIN ATOMIC
    INSERT INTO dbosflow.outbox (workflow_id, id, key, producer, payload)
    SELECT send_message.workflow_id, dbosflow.outbox_id(), 'dbosflow/inbox/' || send_message.topic,
           'k:' || send_message.idempotency_key, send_message.value::json;
END;

REVOKE ALL ON FUNCTION dbosflow.outbox_id, dbosflow.start_workflow, dbosflow.send_message FROM PUBLIC;
