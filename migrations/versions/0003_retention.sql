-- What was trimmed from streams, so that a replay still knows how much each producer has written.
CREATE TABLE dbosflow.stream_trim (
    workflow_id text   NOT NULL,
    key         text   NOT NULL,
    producer    text   NOT NULL,
    count       bigint NOT NULL,                           -- of its values that are gone
    bytes       bigint NOT NULL,                           -- of their size, each value's and one more
    PRIMARY KEY (workflow_id, key, producer)
) WITH (fillfactor = 80);
