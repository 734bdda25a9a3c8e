CREATE TABLE dbosflow.bucket (
    name          text             NOT NULL PRIMARY KEY,
    rate_count    integer          NOT NULL CHECK (rate_count > 0),
    rate_period   double precision NOT NULL CHECK (rate_period > 0),
    rate_burst    integer          NOT NULL CHECK (rate_burst > 0),
    rate_next_at  timestamptz,
    rate_moved_at timestamptz,
    paused        boolean          NOT NULL DEFAULT false,
    pause_ends_at timestamptz,
    created_at    timestamptz      NOT NULL DEFAULT now(),
    updated_at    timestamptz      NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

ALTER TABLE dbosflow.queue
    ADD COLUMN rate_moved_at timestamptz,
    ADD COLUMN bucket        text;

ALTER TABLE dbosflow.workflow
    ADD COLUMN units   integer CHECK (units > 0),
    ADD COLUMN charged text;
