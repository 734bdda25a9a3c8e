-- The whole schema after all migrations, in one file. A test compares it with a migrated database.
-- Every unique key begins with the id of a workflow or of a stream, or belongs to a small table. There are no foreign keys between
-- workflows, no triggers and no sequences, which cause problems in a distributed Postgres or behind a pooler. The functions
-- are for users; no statement of an engine calls one.

CREATE SCHEMA IF NOT EXISTS dbosflow;

-- One row per execution. `worker_id` and `epoch` are the fence: only the worker that has both may write for the run.
-- An ended or queued workflow has no worker_id.
CREATE TABLE dbosflow.workflow (
    id                  text        NOT NULL PRIMARY KEY,
    name                text        NOT NULL,
    status              text        NOT NULL
        CHECK (status IN ('queued', 'scheduled', 'running', 'waiting', 'blocked', 'succeeded', 'failed', 'cancelled')),
    queue               text        NOT NULL DEFAULT '',   -- '': started in a process; any executing engine recovers it. A
                                                           -- partition key stands behind chr(31): see _records/pins.py
    priority            integer     NOT NULL DEFAULT 0,    -- lower first
    keys                json,                              -- deduplication, partition and fairness keys
    input               json        NOT NULL,              -- the arguments of the current iteration by parameter name
    output              json,
    error               json,                              -- {"type", "module", "message", "args"}
    epoch               integer     NOT NULL DEFAULT 0,    -- + 1 with each claim and each reclaim
    worker_id           uuid,
    parent_id           text,
    parent_key          text,
    input_streams       text[],                            -- keys of the inputs; the workflow's end closes them by name
    attributes          json,
    deadline_at         timestamptz,
    wake_at             timestamptz,
    cancel_requested_at timestamptz,                       -- final: afterwards it ends so, or not at all
    recoveries          integer     NOT NULL DEFAULT 0,    -- consecutive deaths of its workers that count against it
    recovered_seq       integer,                           -- seq of the newest record at the last reclaim
    created_at          timestamptz NOT NULL DEFAULT now(),
    started_at          timestamptz,
    ended_at            timestamptz,
    cancel_children     boolean,                           -- whether its cancellation includes its children
    forked_from         text,                              -- for a fork: the workflow that it is a copy of
    forked_turn         integer,                           -- for a fork: the turn from which it goes on by itself
    cancel_reason       text,                              -- why its cancellation was requested
    timed_out           boolean,                           -- the request is that of its deadline: it ends as failed
    max_recoveries      integer,                           -- how many recoveries park it; null: the engine's setting
    iteration           integer,                           -- how often it was continued as new; null: never
    slot                text,                              -- the queue with limits in which it counts while it runs
    units               integer CHECK (units > 0),         -- what it takes of its queue's rate; null: 1
    charged             text,                              -- the bucket that it has taken them from; '': its queue's own rate
    charged_partition   boolean                            -- whether it has taken them from the rate of its partition, too
) WITH (fillfactor = 80);
-- An ANALYZE of a few workflows that one statement made must not tell the planner that there is one time of creation: Postgres
-- 18 would look up ids by the index of these times.
ALTER TABLE dbosflow.workflow ALTER COLUMN created_at SET (n_distinct = -1);

-- Scanned by a claim, name by name, each in the order of a claim: so none walks over names that its worker does not know.
CREATE INDEX workflow_queued ON dbosflow.workflow (queue, name, priority, created_at, id) WHERE status = 'queued';
-- Queued suspects of killing their workers, which are claimed alone. There are few or none.
CREATE INDEX workflow_suspected ON dbosflow.workflow (queue, name, recoveries, created_at, id)
    WHERE status = 'queued' AND recoveries >= 3;
-- Scanned by a reclaim.
CREATE INDEX workflow_owned ON dbosflow.workflow (worker_id) WHERE worker_id IS NOT NULL;
-- Scanned by a listing.
CREATE INDEX workflow_created ON dbosflow.workflow (created_at, id);
-- Scanned by the alarm. Only workflows with a deadline that were not asked to end are in it.
CREATE INDEX workflow_deadline ON dbosflow.workflow (deadline_at)
    WHERE deadline_at IS NOT NULL AND status NOT IN ('succeeded', 'failed', 'cancelled') AND cancel_requested_at IS NULL;
-- Scanned by the clock step.
CREATE INDEX workflow_due ON dbosflow.workflow (wake_at) WHERE status IN ('waiting', 'scheduled');
-- A workflow's children.
CREATE INDEX workflow_parent ON dbosflow.workflow (parent_id) WHERE parent_id IS NOT NULL;
-- A workflow's forks.
CREATE INDEX workflow_forked ON dbosflow.workflow (forked_from) WHERE forked_from IS NOT NULL;
-- Counted by a claim from a queue with limits: what runs of that queue, and of each of its partitions. No other is in it.
CREATE INDEX workflow_slot ON dbosflow.workflow (slot, split_part(queue, chr(31), 2))
    WHERE status = 'running' AND slot IS NOT NULL;
-- Scanned by a claim from a queue with partitions, from one partition to the next. What has no partition is not in it. Its
-- condition is written so that no query which it is for can be answered by another index of what is queued.
CREATE INDEX workflow_partitioned
    ON dbosflow.workflow ((split_part(queue, chr(31), 1)) COLLATE "C", (split_part(queue, chr(31), 2)) COLLATE "C")
    WHERE status IS NOT DISTINCT FROM 'queued' AND strpos(queue, chr(31)) > 0;
-- Scanned by a listing of what needs attention. What succeeds is never in it, and costs nothing.
CREATE INDEX workflow_unsuccessful ON dbosflow.workflow (status, created_at, id)
    WHERE status IN ('blocked', 'failed', 'cancelled');

-- What users search workflows by. In a table of its own: an index on `workflow` would be written with each change of a status.
CREATE TABLE dbosflow.attribute (
    workflow_id text NOT NULL,
    name        text NOT NULL,
    value       text NOT NULL,                             -- JSON of a text, a whole number, true or false
    PRIMARY KEY (workflow_id, name)
) WITH (fillfactor = 90);
CREATE INDEX attribute_value ON dbosflow.attribute (name, value, workflow_id);

-- One row per durable record of a run, inserted once and never updated. `seq` orders a workflow's records over all its
-- epochs. `turn` counts its commits: outcomes of the same turn are delivered to the program together, live and on replay.
CREATE TABLE dbosflow.step (
    workflow_id text        NOT NULL,
    key         text        NOT NULL,                      -- branch path / name # occurrence
    kind        text        NOT NULL,                      -- step | attempt | sleep | woken | child | given_up ...
    epoch       integer     NOT NULL,
    seq         integer     NOT NULL,
    turn        integer     NOT NULL,
    attempt     text,                                      -- epoch.n
    output      json,
    error       json,
    child_id    text,
    wake_at     timestamptz,
    started_at  timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    loop_key    text,                                      -- for an item of a `for_each` loop: the loop's own key
    loop_offset bigint,                                    -- for an item of a loop: its offset in the loop's stream
    loop_next   bigint,                                    -- every item before this offset is done
    PRIMARY KEY (workflow_id, key)
);
-- All forms of a key are in _records/keys.py, all kinds in _records/kinds.py.
COMMENT ON COLUMN dbosflow.step.key IS 'branch path / name # occurrence; what separates is %-escaped in names';

-- Append-only. A block has consecutive frames of one stream by one producer; a control frame has a block of its own.
-- What an attempt of a step writes has the name `step's key @ attempt`, and the attempt besides (_records/producers.py).
-- So `left(producer, -length(attempt) - 1)` is the step's key, and what stands under it in `step` commits the block if it
-- is the success of that attempt, or, for the attempt `*`, of any. Until then the block is uncommitted, unless a rollback
-- of its producer stands in the stream. Five statements ask that, in the same words: step.sql's history, stream.sql's
-- fetch, backwards and list, retention.sql's trim.
CREATE TABLE dbosflow.stream_block (
    workflow_id  text        NOT NULL,
    key          text        NOT NULL,
    "offset"     bigint      NOT NULL,                     -- of the first frame
    count        integer     NOT NULL CHECK (count > 0),
    kind         text        NOT NULL CHECK (kind IN ('values', 'rollback', 'complete', 'error', 'cancelled')),
    values       json,                                     -- values: an array of `count`; control frames: their payload
    bytes        integer     NOT NULL,                     -- size of `values` as text
    producer     text        NOT NULL,                     -- branch path; in a step: the step's key @ attempt
    producer_seq bigint      NOT NULL,                     -- how many values the producer had written before
    attempt      text,                                     -- epoch.n of the step attempt that wrote it
    epoch        integer     NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    checksum     integer,                                  -- CRC-32 of the producer's values up to the block's last one
    turn         integer,                                  -- of the last record before it or with it; -1: before the first
    PRIMARY KEY (workflow_id, key, "offset")
);
-- Blocks written to inputs from outside have epoch 0, which no owner has; so each producer's block exists once. Their
-- producers are `k:` and an idempotency key, or `w:` and a unique id.
CREATE UNIQUE INDEX stream_block_input ON dbosflow.stream_block (workflow_id, key, producer) WHERE epoch = 0;
-- A reader's fetch looks up the few rollbacks that follow its offset.
CREATE INDEX stream_block_rollback ON dbosflow.stream_block (workflow_id, key) WHERE kind = 'rollback';

-- What was trimmed from streams. A replay needs to know how much each producer has written, and a writer to an input
-- whether a block with its producer's name was there. Rows of outside writers without a key are joined after a day, to one
-- of the producer `w:`: see `trim` in retention.sql.
CREATE TABLE dbosflow.stream_trim (
    workflow_id text   NOT NULL,
    key         text   NOT NULL,
    producer    text   NOT NULL,
    count       bigint NOT NULL,                           -- of the values that were trimmed
    bytes       bigint NOT NULL,                           -- of their sizes, plus one for each value
    "offset"    bigint,                                    -- of a block from outside; null for the workflow's own values
    checksum    integer,                                   -- of all values of the producer up to the last trimmed one
    turn        integer,                                   -- no fork goes back before it; null: older code has trimmed
    trimmed_at  timestamptz NOT NULL DEFAULT now(),        -- for the first time
    PRIMARY KEY (workflow_id, key, producer)
) WITH (fillfactor = 80);

-- What suspended workflows wait for, besides a time. A row is removed by whoever queues its workflow again.
CREATE TABLE dbosflow.waiter (
    workflow_id text    NOT NULL,
    topic       text    NOT NULL,                          -- of the hints; behind a number for further readers of a stream
    target_id   text    NOT NULL,                          -- the end of this workflow, or, with a key, a frame of its stream
    key         text,
    "offset"    bigint  NOT NULL,                          -- the first one that the waiting reader has not seen
    committed   boolean NOT NULL,                          -- whether only frames count that can no longer be rolled back
    PRIMARY KEY (workflow_id, topic)
);
CREATE INDEX waiter_topic ON dbosflow.waiter (topic);

-- What a user's own transaction has asked for: starts under given ids, and messages. A row becomes visible with the commit,
-- and an engine applies it in a statement of its own: so an open transaction never holds an id or a place in a stream.
CREATE TABLE dbosflow.outbox (
    workflow_id    text        NOT NULL,                   -- that is to be started, or gets the message
    id             uuid        NOT NULL,                   -- in the order in which the sender has made them
    name           text,                                   -- for a start: of the workflow
    queue          text,
    priority       integer     NOT NULL DEFAULT 0,
    input_streams  text[],
    deadline_at    timestamptz,
    max_recoveries integer,
    wake_at        timestamptz,                            -- when it may begin
    attributes     json,                                   -- names, and the JSON of their values as texts
    key            text,                                   -- for a message: of its inbox
    producer       text,                                   -- for a message with an idempotency key
    payload        json        NOT NULL,                   -- the arguments by parameter name, or the message
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (workflow_id, id),
    units          integer     CHECK (units > 0),
    CONSTRAINT either_start_or_message CHECK ((name IS NULL) <> (key IS NULL) AND (name IS NULL) = (queue IS NULL)),
    CONSTRAINT workflow_id_of_1_to_512_bytes CHECK (octet_length(workflow_id) BETWEEN 1 AND 512),
    CONSTRAINT name_of_1_to_512_bytes CHECK (octet_length(name) BETWEEN 1 AND 512),
    CONSTRAINT queue_of_up_to_1200_bytes CHECK (octet_length(queue) <= 1200),
    CONSTRAINT queue_of_one_partition CHECK (split_part(queue, chr(31), 3) = ''),
    CONSTRAINT topic_of_up_to_472_bytes CHECK (starts_with(key, 'dbosflow/inbox/') AND octet_length(key) <= 487),
    CONSTRAINT idempotency_key_of_1_to_512_bytes CHECK (octet_length(producer) BETWEEN 3 AND 514),
    CONSTRAINT arguments_are_an_object CHECK (name IS NULL OR json_typeof(payload) = 'object'),
    CONSTRAINT payload_of_up_to_256_mib CHECK (octet_length(payload::text) <= 268435456)
);

-- The keys of deduplicated starts. A key is held as long as its workflow has not ended; an end leaves the row as it is.
CREATE TABLE dbosflow.dedup (
    queue       text NOT NULL,
    key         text NOT NULL,
    workflow_id text NOT NULL,                             -- that took the key last; empty: none yet
    start_id    text NOT NULL,                             -- the id of the start that has made it, or replaced its arguments
    PRIMARY KEY (queue, key)
) WITH (fillfactor = 50);
-- Scanned by a removal.
CREATE INDEX dedup_workflow ON dbosflow.dedup (workflow_id);

-- Starts with keys that a user's own transaction has asked for. They are applied in the order of their ids for each key.
CREATE TABLE dbosflow.outbox_start (
    queue      text        NOT NULL,
    key        text        NOT NULL,
    id         uuid        NOT NULL,                       -- in the order in which the sender has made them
    start_id   text        NOT NULL,                       -- the id of the workflow, if the key lets a new one be made
    input      json        NOT NULL,
    request    json        NOT NULL,                       -- name, queue, policy and options: see outbox.py
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (queue, key, id)
);
CREATE INDEX outbox_start_start ON dbosflow.outbox_start (start_id);

-- A worker lease: one connection of one process. Batches lock the row FOR KEY SHARE; a death locks it FOR UPDATE.
CREATE TABLE dbosflow.worker (
    id                 uuid             NOT NULL PRIMARY KEY,
    state              text             NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'dead')),
    lease              double precision NOT NULL,          -- seconds
    renewed_at         timestamptz      NOT NULL DEFAULT now(),
    started_at         timestamptz      NOT NULL DEFAULT now(),
    ended_at           timestamptz,
    ended_because      text,                               -- released | vanished | expired
    host               text             NOT NULL,
    boot_id            text,                               -- of the host's kernel
    pid_namespace      text,                               -- pids are only comparable within it
    pid                integer          NOT NULL,
    process_started_at text,                               -- the kernel's start time of the process, in its own unit
    version            text             NOT NULL,
    suspect            text,                               -- the workflow that it runs alone, which only its death accuses
    queues             text[],                             -- that it serves, for people to look at; null: older code
    names              text[],                             -- of the workflows that it knows
    version_name       text,                               -- its version in its user's words; `version` is dbosflow's own
    schedules          json                                -- that its code declares: their fingerprints by name; null: older code
) WITH (fillfactor = 10);

-- Scanned when a partition gets room, for those who may wait for it. No renewal touches it.
CREATE INDEX worker_version_name ON dbosflow.worker (version_name) WHERE state = 'live' AND version_name IS NOT NULL;

-- The queues with limits. A claim from one holds its row FOR NO KEY UPDATE, and counts in a later statement of the same
-- transaction what runs: see queue.sql. A queue without a row has no limits, and its claims lock nothing here.
CREATE TABLE dbosflow.queue (
    name               text        NOT NULL PRIMARY KEY,   -- in its user's words: the same for all versions
    concurrency        integer     CHECK (concurrency > 0),         -- how many of it run at a time; null: without limit
    worker_concurrency integer     CHECK (worker_concurrency > 0),  -- how many of it run in each worker
    paused             boolean     NOT NULL DEFAULT false, -- nothing of it begins
    pause_ends_at      timestamptz,                        -- when the pause ends by itself
    settled            boolean     NOT NULL DEFAULT false, -- whether what ran before the row was there is counted
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    rate_count         integer     CHECK (rate_count > 0), -- how many of it begin in each period; null: any number
    rate_period        double precision CHECK (rate_period > 0),    -- seconds
    rate_burst         integer     CHECK (rate_burst > 0), -- how many of these may begin at once
    rate_next_at       timestamptz,                        -- when the next one would begin if all came evenly
    rate_moved_at      timestamptz,                        -- when that was set: a clock put back since is seen by it
    bucket             text,                               -- whose rate it has, in place of one of its own
    partition_concurrency integer  CHECK (partition_concurrency > 0), -- how many of each partition run at a time
    weights            json,                               -- how many of a partition have their turn at once; null: one
    served             text,                               -- the partition that had its turn last
    turn               integer     NOT NULL DEFAULT 0,     -- how many of it had
    partition_rate_count  integer  CHECK (partition_rate_count > 0), -- how many of each partition begin in each period
    partition_rate_period double precision CHECK (partition_rate_period > 0), -- seconds
    partition_rate_burst  integer  CHECK (partition_rate_burst > 0)  -- how many of these may begin at once
) WITH (fillfactor = 50);

-- Rates that several queues share. A claim from such a queue holds this row, too, after the queue's: see queue.sql.
CREATE TABLE dbosflow.bucket (
    name          text             NOT NULL PRIMARY KEY,
    rate_count    integer          NOT NULL CHECK (rate_count > 0),  -- how many units in each period
    rate_period   double precision NOT NULL CHECK (rate_period > 0), -- seconds
    rate_burst    integer          NOT NULL CHECK (rate_burst > 0),  -- how many units at once
    rate_next_at  timestamptz,                                       -- as in `queue`
    rate_moved_at timestamptz,
    paused        boolean          NOT NULL DEFAULT false,           -- nothing of its queues begins
    pause_ends_at timestamptz,
    created_at    timestamptz      NOT NULL DEFAULT now(),
    updated_at    timestamptz      NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- What partitions have taken of the rate of their queue's partitions. Whoever writes a row holds that of the queue. One whose
-- time has passed says the same as none, and is removed by and by.
CREATE TABLE dbosflow.partition_rate (
    queue    text        NOT NULL,                         -- the queue's name
    key      text        NOT NULL,                         -- of the partition; '': what has none
    next_at  timestamptz NOT NULL,                         -- as in `queue`
    moved_at timestamptz NOT NULL,
    PRIMARY KEY (queue, key)
) WITH (fillfactor = 50);

-- What workflows have really used of a rate, in place of the units of their starts: see used_units.sql.
CREATE TABLE dbosflow.used_units (
    workflow_id text    NOT NULL,
    key         text    NOT NULL,                          -- of the call that said so; '': the start's units were given back
    units       integer NOT NULL,
    PRIMARY KEY (workflow_id, key)
);

-- Streams that belong to no workflow: made, written, read and removed over HTTP. Their frames are rows of `stream_block` under
-- `id`, which no workflow can have (_records/spaces.py). Whoever writes to one holds this row FOR UPDATE; so its tail, and what
-- is known of its producers, is read in a later statement of the same transaction.
CREATE TABLE dbosflow.standalone_stream (
    path         text        NOT NULL PRIMARY KEY,         -- its name
    id           text        NOT NULL,                     -- another one each time that a path is used again
    content_type text        NOT NULL,
    ttl          integer,                                  -- seconds without an access after which it is gone
    expires_at   timestamptz,                              -- when it is gone; with a ttl: moved on by accesses
    last_seq     text,                                     -- the greatest `Stream-Seq`, in the order of its bytes
    forked_from  text,                                     -- the path of the stream that it began as a copy of
    fork_offset  bigint,                                   -- as it was asked for
    fork_part    bigint,                                   -- how much of the next message was copied, too
    deleted_at   timestamptz,                              -- its content is gone; its name is taken while it has forks
    created_at   timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 80);
CREATE INDEX standalone_stream_expired ON dbosflow.standalone_stream (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX standalone_stream_forked ON dbosflow.standalone_stream (forked_from) WHERE forked_from IS NOT NULL;

-- The last append of each producer to such a stream, which every further one is checked against.
CREATE TABLE dbosflow.standalone_producer (
    stream_id text    NOT NULL,
    producer  text    NOT NULL,
    epoch     bigint  NOT NULL,
    seq       bigint  NOT NULL,                            -- of its last append in that epoch
    PRIMARY KEY (stream_id, producer)
) WITH (fillfactor = 50);

-- Workflows that are started at certain times. Code, or whoever applies a schedule, owns what it is; the rows own whether it is
-- paused, and which tick is next. Whoever starts a tick's workflow changes `version` in the same statement.
CREATE TABLE dbosflow.schedule (
    name           text             NOT NULL PRIMARY KEY,
    version        uuid             NOT NULL DEFAULT gen_random_uuid(), -- another one with each change
    workflow       text             NOT NULL,              -- the name of the workflow that each tick starts
    queue          text             NOT NULL,
    priority       integer          NOT NULL,
    input          json             NOT NULL,              -- the arguments by parameter name, without the tick
    tick_parameter text,                                   -- the parameter that gets the tick
    input_streams  text[],
    timeout        double precision,                       -- seconds
    max_recoveries integer,
    attributes     json             NOT NULL,              -- names, and the JSON of their values as texts
    cron           text,
    every          double precision,                       -- seconds
    timezone       text             NOT NULL,
    overlap        text             NOT NULL CHECK (overlap IN ('allow', 'skip', 'buffer_one', 'cancel_running')),
    catch_up       double precision NOT NULL,              -- seconds
    jitter         double precision NOT NULL,              -- seconds
    module         text,                                   -- whose code declares it; null: it was applied by a call
    fingerprint    text             NOT NULL,              -- of all the above
    fingerprints   text[]           NOT NULL,              -- all that were declared, in the order in which they were first seen
    paused_at      timestamptz,
    paused_because text             CHECK (paused_because IN ('request', 'gone')), -- gone from the code that declared it
    next_at        timestamptz,                            -- the next tick; null: none comes any more
    checked_at     timestamptz      NOT NULL,              -- when next_at was written
    set_at         timestamptz      NOT NULL,              -- when its times were set: ticks up to then do not count
    last_at        timestamptz,                            -- the last tick that has started a workflow
    missed         integer          NOT NULL DEFAULT 0,    -- ticks since then that have started none
    buffered_at    timestamptz,                            -- the tick that waits for the end of what runs
    open_ids       text[]           NOT NULL DEFAULT '{}', -- the newest that it has started and that had not ended
    created_at     timestamptz      NOT NULL DEFAULT now(),
    units          integer          CHECK (units > 0),
    CONSTRAINT either_cron_or_every CHECK ((cron IS NULL) <> (every IS NULL))
) WITH (fillfactor = 50);
-- Scanned by a scheduler, for what is due; for what was written by a clock that was ahead; and for ticks that wait.
CREATE INDEX schedule_due ON dbosflow.schedule (next_at) WHERE paused_at IS NULL;
CREATE INDEX schedule_checked ON dbosflow.schedule (checked_at) WHERE paused_at IS NULL;
CREATE INDEX schedule_buffered ON dbosflow.schedule (name) WHERE buffered_at IS NOT NULL;

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

-- The oldest code that may use this schema. Older code refuses to open it.
CREATE TABLE dbosflow.compatibility (
    oldest_code integer NOT NULL PRIMARY KEY               -- for publications, as of all tables; there is one row
);
INSERT INTO dbosflow.compatibility (oldest_code) VALUES (1);

-- For people in psql. `value` stays json, because ->> and jsonb would refuse \u0000, which a json column can hold.
CREATE VIEW dbosflow.stream_value AS
SELECT b.workflow_id, b.key, b."offset" + v.ordinality - 1 AS "offset", v.value,
       b.producer, b.attempt, b.epoch, b.created_at
FROM dbosflow.stream_block b
CROSS JOIN LATERAL json_array_elements(b.values) WITH ORDINALITY AS v (value, ordinality)
WHERE b.kind = 'values';

-- The id of a row of the outbox: a UUID of version 7 (RFC 9562), by the server's clock, and greater than the one before in
-- this session: so the rows of a session are applied in its order.
CREATE FUNCTION dbosflow.outbox_id() RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY INVOKER
BEGIN ATOMIC
    SELECT (lpad(to_hex(t.tick >> 12), 12, '0') || '7' || lpad(to_hex(t.tick & 4095), 3, '0')
            || substr(replace(gen_random_uuid()::text, '-', ''), 17))::uuid
    FROM (
        SELECT set_config('dbosflow.outbox_tick', greatest(
            (extract(epoch FROM clock_timestamp()) * 4096000)::bigint,
            coalesce(nullif(current_setting('dbosflow.outbox_tick', true), '')::bigint, 0) + 1)::text, false)::bigint AS tick
    ) AS t;
END;

-- What the functions below say to a caller who asks for what cannot be.
CREATE FUNCTION dbosflow.refuse(message text, hint text) RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL SAFE SECURITY INVOKER
AS $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = message, HINT = hint; END $$;

-- For SQL, triggers and other languages: starts a workflow once the transaction has committed, and returns its id. With an
-- id of a workflow that is there, nothing happens. What is NULL was not given.
CREATE FUNCTION dbosflow.start_workflow(
    name text, args jsonb DEFAULT '{}', queue text DEFAULT 'default', workflow_id text DEFAULT NULL,
    priority integer DEFAULT 0, timeout interval DEFAULT NULL, inputs text[] DEFAULT NULL, units integer DEFAULT NULL
) RETURNS text
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY INVOKER
BEGIN ATOMIC
    INSERT INTO dbosflow.outbox (workflow_id, id, name, queue, priority, input_streams, deadline_at, units, payload)
    SELECT CASE WHEN starts_with(start_workflow.workflow_id, 'dbosflow/stream/')
           THEN dbosflow.refuse('the id of a workflow must not begin with dbosflow/stream/',
                                'Streams without a workflow have such ids: take another one.')
           ELSE coalesce(start_workflow.workflow_id, dbosflow.outbox_id()::text) END,
           dbosflow.outbox_id(),
           coalesce(start_workflow.name, dbosflow.refuse(
               'start_workflow needs the name of a workflow', 'It is that of the function, or of @workflow(name=...).')),
           CASE WHEN given.queue IS NULL THEN 'default'
                WHEN octet_length(given.queue) NOT BETWEEN 1 AND 512 OR starts_with(given.queue, 'dbosflow/')
                THEN dbosflow.refuse('a queue must have 1 to 512 bytes, and not begin with dbosflow/',
                                     'Leave it out for the queue `default`. Pinned workflows wait in queues of such names.')
                WHEN given.separators > 1 OR (given.separators = 1 AND octet_length(given.partition_key) NOT BETWEEN 1 AND 512)
                THEN dbosflow.refuse('a queue must not hold the character U+001F, which stands before a partition key',
                                     'Give queue => dbosflow.queue_partition(queue, partition_key), with a key of 1 to 512 bytes.')
                ELSE start_workflow.queue END,
           coalesce(start_workflow.priority, 0),
           CASE WHEN EXISTS (
               SELECT FROM unnest(start_workflow.inputs) AS input (key)
               WHERE coalesce(octet_length(input.key), 0) NOT BETWEEN 1 AND 512 OR starts_with(input.key, 'dbosflow/')
           ) THEN ARRAY[dbosflow.refuse(
               'inputs must be keys of 1 to 512 bytes that do not begin with dbosflow/',
               'They are those that the workflow declares. What begins with dbosflow/ holds messages and events.')]
           ELSE start_workflow.inputs END,
           CASE WHEN extract(epoch FROM start_workflow.timeout) NOT BETWEEN 1e-6 AND 3155760000
           THEN dbosflow.refuse('timeout must be above 0, and up to a hundred years',
                                'Leave it out if the workflow may take any time.')::timestamptz
           ELSE clock_timestamp() + start_workflow.timeout END,
           CASE WHEN start_workflow.units < 1
           THEN dbosflow.refuse('units must be 1 or more',
                                'They are what the start takes of the rate of its queue: 1 if it is left out.')::integer
           ELSE start_workflow.units END,
           coalesce(start_workflow.args, '{}')::json
    FROM (SELECT split_part(start_workflow.queue, chr(31), 1), split_part(start_workflow.queue, chr(31), 2),
                 length(start_workflow.queue) - length(replace(start_workflow.queue, chr(31), ''))
         ) AS given (queue, partition_key, separators)
    RETURNING outbox.workflow_id;
END;

-- For SQL, triggers and other languages: a partition of a queue, as the `queue` of start_workflow.
CREATE FUNCTION dbosflow.queue_partition(queue text, partition_key text) RETURNS text
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY INVOKER
BEGIN ATOMIC
    SELECT CASE WHEN octet_length(queue_partition.queue) BETWEEN 1 AND 512
                     AND octet_length(queue_partition.partition_key) BETWEEN 1 AND 512
                     AND strpos(queue_partition.queue || queue_partition.partition_key, chr(31)) = 0
                     AND NOT starts_with(queue_partition.queue, 'dbosflow/')
           THEN queue_partition.queue || chr(31) || queue_partition.partition_key
           ELSE dbosflow.refuse(
               'a queue and a partition key must have 1 to 512 bytes, without U+001F; and no queue begins with dbosflow/',
               'U+001F stands between the two. A workflow without a partition key is started with the queue alone.') END;
END;

-- For SQL, triggers and other languages: sends a message to a workflow once the transaction has committed. What is NULL was
-- not given; as a value it is JSON's null.
CREATE FUNCTION dbosflow.send_message(
    workflow_id text, value jsonb, topic text DEFAULT '', idempotency_key text DEFAULT NULL
) RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY INVOKER
BEGIN ATOMIC
    INSERT INTO dbosflow.outbox (workflow_id, id, key, producer, payload)
    SELECT coalesce(send_message.workflow_id, dbosflow.refuse(
               'send_message needs the id of a workflow', 'It is what start_workflow returns, or was given to it.')),
           dbosflow.outbox_id(), 'dbosflow/inbox/' || coalesce(send_message.topic, ''),
           'k:' || send_message.idempotency_key,
           CASE WHEN octet_length(send_message.value::text)
                     > coalesce(nullif(current_setting('dbosflow.message_bytes', true), ''), '1048576')::bigint
           THEN dbosflow.refuse(
               'the message is larger than dbosflow.message_bytes, which is 1 MiB unless it is set',
               'Send where it is, or SET dbosflow.message_bytes, also for a role or a database.')::json
           ELSE coalesce(send_message.value, 'null')::json END;
END;

REVOKE ALL ON FUNCTION dbosflow.outbox_id, dbosflow.start_workflow, dbosflow.queue_partition, dbosflow.send_message FROM PUBLIC;
