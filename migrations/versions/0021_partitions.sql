ALTER TABLE dbosflow.queue
    ADD COLUMN partition_concurrency integer CHECK (partition_concurrency > 0),
    ADD COLUMN weights               json,
    ADD COLUMN served                text,
    ADD COLUMN turn                  integer NOT NULL DEFAULT 0;

CREATE INDEX workflow_partitioned
    ON dbosflow.workflow ((split_part(queue, chr(31), 1)) COLLATE "C", (split_part(queue, chr(31), 2)) COLLATE "C")
    WHERE status IS NOT DISTINCT FROM 'queued' AND strpos(queue, chr(31)) > 0;

ALTER TABLE dbosflow.outbox
    DROP CONSTRAINT queue_of_up_to_700_bytes,
    ADD CONSTRAINT queue_of_up_to_1200_bytes CHECK (octet_length(queue) <= 1200),
    ADD CONSTRAINT queue_of_one_partition CHECK (split_part(queue, chr(31), 3) = '');

-- For SQL, triggers and other languages: a partition of a queue, as the `queue` of start_workflow.
CREATE FUNCTION dbosflow.queue_partition(queue text, partition_key text) RETURNS text
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY INVOKER
BEGIN ATOMIC
    SELECT CASE WHEN octet_length(queue_partition.queue) BETWEEN 1 AND 512
                     AND octet_length(queue_partition.partition_key) BETWEEN 1 AND 512
                     AND strpos(queue_partition.queue || queue_partition.partition_key, chr(31)) = 0
           THEN queue_partition.queue || chr(31) || queue_partition.partition_key
           ELSE dbosflow.refuse(
               'a queue and a partition key must have 1 to 512 bytes, without the character U+001F',
               'U+001F stands between the two. A workflow without a partition key is started with the queue alone.') END;
END;

REVOKE ALL ON FUNCTION dbosflow.queue_partition FROM PUBLIC;
