CREATE TABLE dbosflow.queue (
    name               text        NOT NULL PRIMARY KEY,
    concurrency        integer     CHECK (concurrency > 0),
    worker_concurrency integer     CHECK (worker_concurrency > 0),
    paused             boolean     NOT NULL DEFAULT false,
    pause_ends_at      timestamptz,
    settled            boolean     NOT NULL DEFAULT false,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

ALTER TABLE dbosflow.workflow ADD COLUMN slot text;
CREATE INDEX workflow_slot ON dbosflow.workflow (slot, split_part(queue, chr(31), 2))
    WHERE status = 'running' AND slot IS NOT NULL;
