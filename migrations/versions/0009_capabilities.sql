-- What users search workflows by. In a table of its own: an index on `workflow` would be written with each change of a status.
CREATE TABLE dbosflow.attribute (
    workflow_id text NOT NULL,
    name        text NOT NULL,
    value       text NOT NULL,                             -- JSON of a text, a whole number, true or false
    PRIMARY KEY (workflow_id, name)
) WITH (fillfactor = 90);
CREATE INDEX attribute_value ON dbosflow.attribute (name, value, workflow_id);

-- Scanned by a listing of what needs attention. What succeeds is never in it, and costs nothing.
CREATE INDEX workflow_unsuccessful ON dbosflow.workflow (status, created_at, id)
    WHERE status IN ('blocked', 'failed', 'cancelled');

-- The turn of a run's last record before a block or with it, -1 before the first: what a fork of the workflow keeps. Null where
-- older code has written or trimmed.
ALTER TABLE dbosflow.stream_block ADD COLUMN turn integer;
ALTER TABLE dbosflow.stream_trim ADD COLUMN turn integer;

-- The workflow that a fork was made of, and the turn from which the fork goes on by itself.
ALTER TABLE dbosflow.workflow ADD COLUMN forked_from text;
ALTER TABLE dbosflow.workflow ADD COLUMN forked_turn integer;
CREATE INDEX workflow_forked ON dbosflow.workflow (forked_from) WHERE forked_from IS NOT NULL;

-- One row, made by the first engine that prunes, and shared by all: where the walk over the workflows is, and when it goes on.
CREATE TABLE dbosflow.retention (
    id           smallint    NOT NULL PRIMARY KEY CHECK (id = 1),
    due_at       timestamptz NOT NULL DEFAULT now(),       -- when the next pass is due
    holder       uuid,                                     -- the pruner that goes on with the walk, while it is on time
    after_at     timestamptz,                              -- where the next pass begins; null: a walk begins
    after_id     text,
    began_at     timestamptz,                              -- of the last walk
    completed_at timestamptz,                              -- of the last walk that came to its end
    removed      bigint      NOT NULL DEFAULT 0            -- by the last walk
) WITH (fillfactor = 10);

-- Why a workflow is to end, besides cancel_requested_at: a caller's words, or that its deadline has passed.
ALTER TABLE dbosflow.workflow ADD COLUMN cancel_reason text, ADD COLUMN timed_out boolean;
-- Scanned by the alarm. Only workflows with a deadline that were not asked to end are in it.
CREATE INDEX workflow_deadline ON dbosflow.workflow (deadline_at)
    WHERE deadline_at IS NOT NULL AND status NOT IN ('succeeded', 'failed', 'cancelled') AND cancel_requested_at IS NULL;

-- How often the workers of the workflow may die in a row without a new record. Null: as often as the engine's setting says.
ALTER TABLE dbosflow.workflow ADD COLUMN max_recoveries integer;

-- What a worker serves, for people who ask why a workflow waits.
ALTER TABLE dbosflow.worker ADD COLUMN queues text[];
ALTER TABLE dbosflow.worker ADD COLUMN names text[];
ALTER TABLE dbosflow.worker ADD COLUMN version_name text;

-- What suspended workflows wait for, besides a time.
CREATE TABLE dbosflow.waiter (
    workflow_id text    NOT NULL,
    topic       text    NOT NULL,                          -- of the hints that there may be news
    target_id   text    NOT NULL,                          -- the end of this workflow, or, with a key, a frame of its stream
    key         text,
    "offset"    bigint  NOT NULL,                          -- the first one that the waiting reader has not seen
    committed   boolean NOT NULL,                          -- whether only frames count that can no longer be rolled back
    PRIMARY KEY (workflow_id, topic)
);
CREATE INDEX waiter_topic ON dbosflow.waiter (topic);

-- Scanned by the clock step.
CREATE INDEX workflow_due ON dbosflow.workflow (wake_at) WHERE status IN ('waiting', 'scheduled');

-- An ANALYZE of a few workflows that one statement made must not tell the planner that there is one time of creation: Postgres
-- 18 would look up ids by the index of these times.
ALTER TABLE dbosflow.workflow ALTER COLUMN created_at SET (n_distinct = -1);

-- How often the workflow was continued as new. Its history begins with the record of the last time. Null: never.
ALTER TABLE dbosflow.workflow ADD COLUMN iteration integer;
