-- The workflow that a lane runs alone, since its workers died again and again: the lane's death accuses no other.
ALTER TABLE dbosflow.worker ADD COLUMN suspect text;

-- The queued ones that are suspected of killing their workers. Few or none.
CREATE INDEX workflow_suspected ON dbosflow.workflow (queue, recoveries, created_at, id)
    WHERE status = 'queued' AND recoveries >= 3;
