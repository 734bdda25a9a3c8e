DROP INDEX dbosflow.workflow_queued;
CREATE INDEX workflow_queued ON dbosflow.workflow (queue, name, priority, created_at, id) WHERE status = 'queued';

DROP INDEX dbosflow.workflow_suspected;
CREATE INDEX workflow_suspected ON dbosflow.workflow (queue, name, recoveries, created_at, id)
    WHERE status = 'queued' AND recoveries >= 3;
