ALTER TABLE dbosflow.queue
    ADD COLUMN rate_count   integer          CHECK (rate_count > 0),
    ADD COLUMN rate_period  double precision CHECK (rate_period > 0),
    ADD COLUMN rate_burst   integer          CHECK (rate_burst > 0),
    ADD COLUMN rate_next_at timestamptz;
