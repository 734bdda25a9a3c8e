-- The minimum privileges of each kind of role. The schema's owner grants them after each migration:
-- `dbosflow migrate --grants ROLE --as worker` prints the statements with the names filled in. Tests run as these roles.

-- name: worker (runs workflows, and does all that clients do)
-- Records are never changed, so not even a worker may update them; it may delete them, to prune.
GRANT USAGE ON SCHEMA :"schema" TO :"role";
GRANT SELECT ON :"schema".schema_version, :"schema".compatibility, :"schema".stream_value TO :"role";
GRANT SELECT, INSERT, DELETE ON :"schema".step TO :"role";
GRANT SELECT, INSERT, UPDATE, DELETE
    ON :"schema".workflow, :"schema".stream_block, :"schema".stream_trim, :"schema".worker, :"schema".attribute,
    :"schema".waiter, :"schema".outbox, :"schema".dedup, :"schema".outbox_start, :"schema".used_units TO :"role";
GRANT EXECUTE ON FUNCTION :"schema".start_workflow, :"schema".queue_partition, :"schema".send_message, :"schema".outbox_id TO :"role";
GRANT SELECT, INSERT, UPDATE ON :"schema".retention TO :"role";
GRANT SELECT, INSERT, UPDATE, DELETE
    ON :"schema".standalone_stream, :"schema".standalone_producer, :"schema".schedule, :"schema".queue, :"schema".bucket, :"schema".partition_rate TO :"role";

-- name: client (starts workflows for workers, writes to their inputs, sets attributes and limits, requests cancellations, resumes, unpins, manages schedules, reads)
GRANT USAGE ON SCHEMA :"schema" TO :"role";
GRANT SELECT ON :"schema".schema_version, :"schema".compatibility, :"schema".workflow, :"schema".step, :"schema".stream_block,
    :"schema".stream_trim, :"schema".worker, :"schema".stream_value, :"schema".attribute, :"schema".retention,
    :"schema".waiter, :"schema".outbox, :"schema".dedup, :"schema".outbox_start TO :"role";
GRANT INSERT (id, name, status, queue, priority, input, input_streams, deadline_at, max_recoveries, wake_at, units)
    ON :"schema".workflow TO :"role";
GRANT UPDATE (cancel_requested_at, cancel_children, cancel_reason, status, ended_at, recoveries, error, queue, slot, input,
    priority, input_streams, deadline_at, max_recoveries, wake_at, units) ON :"schema".workflow TO :"role"; -- of one that waits, by a later start
GRANT INSERT ON :"schema".stream_block TO :"role";
GRANT INSERT, UPDATE, DELETE ON :"schema".attribute TO :"role";
GRANT INSERT, DELETE ON :"schema".waiter TO :"role";
GRANT INSERT, UPDATE ON :"schema".dedup TO :"role";
GRANT INSERT, DELETE, UPDATE (created_at) ON :"schema".outbox_start TO :"role";
GRANT SELECT, INSERT, UPDATE, DELETE
    ON :"schema".standalone_stream, :"schema".standalone_producer, :"schema".schedule, :"schema".queue, :"schema".bucket, :"schema".partition_rate TO :"role";
GRANT INSERT, DELETE, UPDATE (created_at) ON :"schema".outbox TO :"role"; -- who cancels a start there applies it first
GRANT EXECUTE ON FUNCTION :"schema".start_workflow, :"schema".queue_partition, :"schema".send_message, :"schema".outbox_id TO :"role";

-- name: reader (reads results, records and streams)
GRANT USAGE ON SCHEMA :"schema" TO :"role";
GRANT SELECT ON :"schema".schema_version, :"schema".compatibility, :"schema".workflow, :"schema".step, :"schema".stream_block,
    :"schema".stream_trim, :"schema".worker, :"schema".stream_value, :"schema".attribute, :"schema".retention,
    :"schema".waiter, :"schema".outbox, :"schema".dedup, :"schema".outbox_start TO :"role";
GRANT SELECT ON :"schema".standalone_stream, :"schema".standalone_producer, :"schema".schedule, :"schema".queue, :"schema".bucket, :"schema".partition_rate TO :"role";
