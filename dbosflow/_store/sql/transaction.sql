-- Transactions of users in which a step of a workflow runs: see dbosflow/_runtime/journal/transactions.py. What stands
-- between the name and the last statement is the user's own, under the role's own settings.

-- name: begin (one message; nothing in it takes a snapshot)
-- The marker is what the last statement demands: it is gone once the function has ended its transaction by itself. An idle
-- session is ended after a lease, so that a frozen worker holds no locks.
BEGIN ISOLATION LEVEL :isolation :access NOT DEFERRABLE;
SET LOCAL idle_in_transaction_session_timeout = :idle;
SET LOCAL "dbosflow"."tx" = :marker;

-- name: savepoint (what follows up to COMMIT travels with the last statement, in one round trip)
SAVEPOINT dbosflow_checks;

-- name: patience
-- From here on the journal waits for the COMMIT, and a deferred constraint may wait for a row that another transaction of the
-- same workflow has locked, which waits for the journal: nobody but this sees such a circle.
SET LOCAL lock_timeout = '50ms';

-- name: constraints
-- Behind these no lock of a user's is left for COMMIT to wait for, and their errors are those of the function.
SET CONSTRAINTS ALL IMMEDIATE;

-- name: release
RELEASE SAVEPOINT dbosflow_checks;

-- name: settings
-- They are the role's, and the function may have changed them: a commit is flushed at least.
SELECT pg_catalog.set_config('statement_timeout', '0', true), pg_catalog.set_config('lock_timeout', '0', true),
       CASE WHEN pg_catalog.current_setting('synchronous_commit') IN ('off', 'local')
            THEN pg_catalog.set_config('synchronous_commit', 'on', true) END;

-- name: constraints_apart (one message, where constraints had to wait: as long as it takes, and the journal does not wait)
ROLLBACK TO SAVEPOINT dbosflow_checks;
SET CONSTRAINTS ALL IMMEDIATE;

-- name: last (the last statement before COMMIT: written whole, or it raises and all is rolled back)
-- :recorded and :appended are the parts of batch.sql. The fence is the run's own row, which each change of its owner or
-- epoch updates: who changes it waits for the COMMIT, or skips the row and comes again; who has changed it shuts the gate,
-- which is a division by zero. The lease's row would be no fence here: releases and reloads of a live worker leave it alone,
-- and in an old snapshot it would be read as it was. No look at tails of streams either: in an old snapshot they would be old.
-- The owner of the row knows them, and the primary key decides. Index: the primary key.
WITH mine AS MATERIALIZED (
    SELECT w.id, w.cancel_requested_at IS NOT NULL AS cancelled, w.cancel_reason, w.timed_out
    FROM dbosflow.workflow w
    WHERE w.id = :run_workflow_id AND w.worker_id = :worker_id AND w.epoch = :run_epoch
      AND current_setting('dbosflow.tx', true) = :marker
-- [timeline
      AND left(pg_walfile_name(pg_current_wal_lsn()), 8) = :timeline::text
-- ]
    FOR NO KEY UPDATE
), recorded AS (:recorded)
-- [blocks
, appended AS (:appended)
-- ]
SELECT 1 / (SELECT count(*) FROM mine)::integer AS written,
       (SELECT json_build_array(cancel_reason, timed_out) FROM mine WHERE cancelled)::text AS request;

-- name: place (by which two connections are known to lead to one database)
SELECT current_database() AS database, pg_postmaster_start_time()::text AS began;

-- name: fence (why the gate was shut: whether the run is still the worker's)
SELECT w.worker_id IS NOT DISTINCT FROM :worker_id::uuid AND w.epoch = :epoch AS mine
FROM dbosflow.workflow w WHERE w.id = :workflow_id;

-- name: wait_for_commit (the first half of the witness, in a transaction of its own)
-- It waits until the backend whose answer was lost has committed or rolled back. The lock is written to the log, so this
-- commits behind that commit, and is as durable.
SELECT 1 AS locked FROM dbosflow.workflow WHERE id = :workflow_id FOR NO KEY UPDATE;

-- name: witness (the second half, with a newer snapshot)
SELECT s.epoch, s.attempt, s.kind, s.output::text AS output FROM dbosflow.step s
WHERE s.workflow_id = :workflow_id AND s.key = :key;
