CREATE TABLE dbosflow.used_units (
    workflow_id text    NOT NULL,
    key         text    NOT NULL,
    units       integer NOT NULL,
    PRIMARY KEY (workflow_id, key)
);

ALTER TABLE dbosflow.outbox ADD COLUMN units integer CHECK (units > 0);
ALTER TABLE dbosflow.schedule ADD COLUMN units integer CHECK (units > 0);

DROP FUNCTION dbosflow.start_workflow(text, jsonb, text, text, integer, interval, text[]);

CREATE FUNCTION dbosflow.start_workflow(
    name text, args jsonb DEFAULT '{}', queue text DEFAULT 'default', workflow_id text DEFAULT NULL,
    priority integer DEFAULT 0, timeout interval DEFAULT NULL, inputs text[] DEFAULT NULL, units integer DEFAULT NULL
) RETURNS text
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY INVOKER
BEGIN ATOMIC
    INSERT INTO dbosflow.outbox (workflow_id, id, name, queue, priority, input_streams, deadline_at, units, payload)
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
           clock_timestamp() + start_workflow.timeout, start_workflow.units, coalesce(start_workflow.args, '{}')::json
    RETURNING outbox.workflow_id;
END;

REVOKE ALL ON FUNCTION dbosflow.start_workflow FROM PUBLIC;
