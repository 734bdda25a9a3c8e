-- What the functions below say to a caller who asks for what cannot be.
CREATE FUNCTION dbosflow.refuse(message text, hint text) RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL SAFE SECURITY INVOKER
AS $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = message, HINT = hint; END $$;

-- For SQL, triggers and other languages: starts a workflow once the transaction has committed, and returns its id. With an
-- id of a workflow that is there, nothing happens. What is NULL was not given.
CREATE OR REPLACE FUNCTION dbosflow.start_workflow(
    name text, args jsonb DEFAULT '{}', queue text DEFAULT 'default', workflow_id text DEFAULT NULL,
    priority integer DEFAULT 0, timeout interval DEFAULT NULL, inputs text[] DEFAULT NULL
) RETURNS text
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY INVOKER
BEGIN ATOMIC
    INSERT INTO dbosflow.outbox (workflow_id, id, name, queue, priority, input_streams, deadline_at, payload)
    SELECT coalesce(start_workflow.workflow_id, dbosflow.outbox_id()::text), dbosflow.outbox_id(),
           coalesce(start_workflow.name, dbosflow.refuse(
               'start_workflow needs the name of a workflow', 'It is that of the function, or of @workflow(name=...).')),
           coalesce(start_workflow.queue, 'default'), coalesce(start_workflow.priority, 0),
           CASE WHEN EXISTS (
               SELECT FROM unnest(start_workflow.inputs) AS input (key)
               WHERE coalesce(octet_length(input.key), 0) NOT BETWEEN 1 AND 512 OR starts_with(input.key, 'dbosflow/')
           ) THEN ARRAY[dbosflow.refuse(
               'inputs must be keys of 1 to 512 bytes that do not begin with dbosflow/',
               'They are those that the workflow declares. What begins with dbosflow/ holds messages and events.')]
           ELSE start_workflow.inputs END,
           clock_timestamp() + start_workflow.timeout, coalesce(start_workflow.args, '{}')::json
    RETURNING outbox.workflow_id;
END;

-- For SQL, triggers and other languages: sends a message to a workflow once the transaction has committed. What is NULL was
-- not given; as a value it is JSON's null.
CREATE OR REPLACE FUNCTION dbosflow.send_message(
    workflow_id text, value jsonb, topic text DEFAULT '', idempotency_key text DEFAULT NULL
) RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY INVOKER
BEGIN ATOMIC
    INSERT INTO dbosflow.outbox (workflow_id, id, key, producer, payload)
    SELECT coalesce(send_message.workflow_id, dbosflow.refuse(
               'send_message needs the id of a workflow', 'It is what start_workflow returns, or was given to it.')),
           dbosflow.outbox_id(), 'dbosflow/inbox/' || coalesce(send_message.topic, ''),
           'k:' || send_message.idempotency_key,
           CASE WHEN octet_length(send_message.value::text)
                     > coalesce(nullif(current_setting('dbosflow.message_bytes', true), ''), '1048576')::bigint
           THEN dbosflow.refuse(
               'the message is larger than dbosflow.message_bytes, which is 1 MiB unless it is set',
               'Send where it is, or SET dbosflow.message_bytes, also for a role or a database.')::json
           ELSE coalesce(send_message.value, 'null')::json END;
END;
