CREATE TABLE dbosflow.dedup (
    queue       text NOT NULL,
    key         text NOT NULL,
    workflow_id text NOT NULL,
    start_id    text NOT NULL,
    PRIMARY KEY (queue, key)
) WITH (fillfactor = 50);
CREATE INDEX dedup_workflow ON dbosflow.dedup (workflow_id);
