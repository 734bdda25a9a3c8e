-- Older code goes on as before: what it trims gets the time by default, and it joins nothing.
ALTER TABLE dbosflow.stream_trim ADD COLUMN trimmed_at timestamptz NOT NULL DEFAULT now();
