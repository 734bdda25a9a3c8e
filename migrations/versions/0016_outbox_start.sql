CREATE TABLE dbosflow.outbox_start (
    queue      text        NOT NULL,
    key        text        NOT NULL,
    id         uuid        NOT NULL,
    start_id   text        NOT NULL,
    input      json        NOT NULL,
    request    json        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (queue, key, id)
);
CREATE INDEX outbox_start_start ON dbosflow.outbox_start (start_id);
