CREATE TABLE dbosflow.schedule (
    name           text             NOT NULL PRIMARY KEY,
    version        uuid             NOT NULL DEFAULT gen_random_uuid(),
    workflow       text             NOT NULL,
    queue          text             NOT NULL,
    priority       integer          NOT NULL,
    input          json             NOT NULL,
    tick_parameter text,
    input_streams  text[],
    timeout        double precision,
    max_recoveries integer,
    attributes     json             NOT NULL,
    cron           text,
    every          double precision,
    timezone       text             NOT NULL,
    overlap        text             NOT NULL CHECK (overlap IN ('allow', 'skip', 'buffer_one', 'cancel_running')),
    catch_up       double precision NOT NULL,
    jitter         double precision NOT NULL,
    module         text,
    fingerprint    text             NOT NULL,
    fingerprints   text[]           NOT NULL,
    paused_at      timestamptz,
    paused_because text             CHECK (paused_because IN ('request', 'gone')),
    next_at        timestamptz,
    checked_at     timestamptz      NOT NULL,
    set_at         timestamptz      NOT NULL,
    last_at        timestamptz,
    missed         integer          NOT NULL DEFAULT 0,
    buffered_at    timestamptz,
    open_ids       text[]           NOT NULL DEFAULT '{}',
    created_at     timestamptz      NOT NULL DEFAULT now(),
    CONSTRAINT either_cron_or_every CHECK ((cron IS NULL) <> (every IS NULL))
) WITH (fillfactor = 50);
CREATE INDEX schedule_due ON dbosflow.schedule (next_at) WHERE paused_at IS NULL;
CREATE INDEX schedule_checked ON dbosflow.schedule (checked_at) WHERE paused_at IS NULL;
CREATE INDEX schedule_buffered ON dbosflow.schedule (name) WHERE buffered_at IS NOT NULL;

ALTER TABLE dbosflow.worker ADD COLUMN schedules json;
