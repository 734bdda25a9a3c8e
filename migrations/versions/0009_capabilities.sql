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
