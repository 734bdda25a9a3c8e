CREATE TABLE dbosflow.standalone_stream (
    path         text        NOT NULL PRIMARY KEY,
    id           text        NOT NULL,
    content_type text        NOT NULL,
    ttl          integer,
    expires_at   timestamptz,
    last_seq     text,
    forked_from  text,
    fork_offset  bigint,
    fork_part    bigint,
    deleted_at   timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 80);
CREATE INDEX standalone_stream_expired ON dbosflow.standalone_stream (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX standalone_stream_forked ON dbosflow.standalone_stream (forked_from) WHERE forked_from IS NOT NULL;

CREATE TABLE dbosflow.standalone_producer (
    stream_id text    NOT NULL,
    producer  text    NOT NULL,
    epoch     bigint  NOT NULL,
    seq       bigint  NOT NULL,
    PRIMARY KEY (stream_id, producer)
) WITH (fillfactor = 50);
