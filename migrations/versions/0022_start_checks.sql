-- A queue that no worker could serve, a time that no calendar has: now refused in the caller's statement.
CREATE OR REPLACE FUNCTION dbosflow.start_workflow(
    name text, args jsonb DEFAULT '{}', queue text DEFAULT 'default', workflow_id text DEFAULT NULL,
    priority integer DEFAULT 0, timeout interval DEFAULT NULL, inputs text[] DEFAULT NULL, units integer DEFAULT NULL
) RETURNS text
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY INVOKER
BEGIN ATOMIC
    INSERT INTO dbosflow.outbox (workflow_id, id, name, queue, priority, input_streams, deadline_at, units, payload)
    SELECT CASE WHEN starts_with(start_workflow.workflow_id, 'dbosflow/stream/')
           THEN dbosflow.refuse('the id of a workflow must not begin with dbosflow/stream/',
                                'Streams without a workflow have such ids: take another one.')
           ELSE coalesce(start_workflow.workflow_id, dbosflow.outbox_id()::text) END,
           dbosflow.outbox_id(),
           coalesce(start_workflow.name, dbosflow.refuse(
               'start_workflow needs the name of a workflow', 'It is that of the function, or of @workflow(name=...).')),
           CASE WHEN given.queue IS NULL THEN 'default'
                WHEN octet_length(given.queue) NOT BETWEEN 1 AND 512 OR starts_with(given.queue, 'dbosflow/')
                THEN dbosflow.refuse('a queue must have 1 to 512 bytes, and not begin with dbosflow/',
                                     'Leave it out for the queue `default`. Pinned workflows wait in queues of such names.')
                WHEN given.separators > 1 OR (given.separators = 1 AND octet_length(given.partition_key) NOT BETWEEN 1 AND 512)
                THEN dbosflow.refuse('a queue must not hold the character U+001F, which stands before a partition key',
                                     'Give queue => dbosflow.queue_partition(queue, partition_key), with a key of 1 to 512 bytes.')
                ELSE start_workflow.queue END,
           coalesce(start_workflow.priority, 0),
           CASE WHEN EXISTS (
               SELECT FROM unnest(start_workflow.inputs) AS input (key)
               WHERE coalesce(octet_length(input.key), 0) NOT BETWEEN 1 AND 512 OR starts_with(input.key, 'dbosflow/')
           ) THEN ARRAY[dbosflow.refuse(
               'inputs must be keys of 1 to 512 bytes that do not begin with dbosflow/',
               'They are those that the workflow declares. What begins with dbosflow/ holds messages and events.')]
           ELSE start_workflow.inputs END,
           CASE WHEN extract(epoch FROM start_workflow.timeout) NOT BETWEEN 1e-6 AND 3155760000
           THEN dbosflow.refuse('timeout must be above 0, and up to a hundred years',
                                'Leave it out if the workflow may take any time.')::timestamptz
           ELSE clock_timestamp() + start_workflow.timeout END,
           CASE WHEN start_workflow.units < 1
           THEN dbosflow.refuse('units must be 1 or more',
                                'They are what the start takes of the rate of its queue: 1 if it is left out.')::integer
           ELSE start_workflow.units END,
           coalesce(start_workflow.args, '{}')::json
    FROM (SELECT split_part(start_workflow.queue, chr(31), 1), split_part(start_workflow.queue, chr(31), 2),
                 length(start_workflow.queue) - length(replace(start_workflow.queue, chr(31), ''))
         ) AS given (queue, partition_key, separators)
    RETURNING outbox.workflow_id;
END;

CREATE OR REPLACE FUNCTION dbosflow.queue_partition(queue text, partition_key text) RETURNS text
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY INVOKER
BEGIN ATOMIC
    SELECT CASE WHEN octet_length(queue_partition.queue) BETWEEN 1 AND 512
                     AND octet_length(queue_partition.partition_key) BETWEEN 1 AND 512
                     AND strpos(queue_partition.queue || queue_partition.partition_key, chr(31)) = 0
                     AND NOT starts_with(queue_partition.queue, 'dbosflow/')
           THEN queue_partition.queue || chr(31) || queue_partition.partition_key
           ELSE dbosflow.refuse(
               'a queue and a partition key must have 1 to 512 bytes, without U+001F; and no queue begins with dbosflow/',
               'U+001F stands between the two. A workflow without a partition key is started with the queue alone.') END;
END;
