ALTER TABLE dbosflow.queue
    ADD COLUMN partition_rate_count  integer          CHECK (partition_rate_count > 0),
    ADD COLUMN partition_rate_period double precision CHECK (partition_rate_period > 0),
    ADD COLUMN partition_rate_burst  integer          CHECK (partition_rate_burst > 0);

CREATE TABLE dbosflow.partition_rate (
    queue    text        NOT NULL,
    key      text        NOT NULL,
    next_at  timestamptz NOT NULL,
    moved_at timestamptz NOT NULL,
    PRIMARY KEY (queue, key)
) WITH (fillfactor = 50);

ALTER TABLE dbosflow.workflow ADD COLUMN charged_partition boolean;
