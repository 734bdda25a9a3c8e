-- Payloads under another key, page by page along the primary keys. Each row is rewritten by a statement of its own, which waits for
-- that row alone, and does nothing if the row has changed or has gone meanwhile: so it can run beside everything else, and be
-- interrupted and begun again. Names that the codecs do not know (`stored_...`) give what is stored, as it is.

-- name: workflow_page (index: the primary key; so it is with the other pages)
SELECT w.id, w.input::text AS stored_input, w.output::text AS stored_output, w.error::text AS stored_error
FROM dbosflow.workflow w
WHERE w.id > :id::text
ORDER BY w.id
LIMIT :limit::integer;

-- name: workflow_rewrite
UPDATE dbosflow.workflow w
SET input = :input::json, output = :output::json, error = :error::json
WHERE w.id = :id::text AND w.input::text = :stored_input::text
  AND w.output::text IS NOT DISTINCT FROM :stored_output::text AND w.error::text IS NOT DISTINCT FROM :stored_error::text
RETURNING true;

-- name: step_page (without what SQL reads, which holds no payload: see carried.py)
SELECT s.workflow_id, s.key, s.output::text AS stored_output, s.error::text AS stored_error, s.kind = 'continued' AS is_none
FROM dbosflow.step s
WHERE (s.workflow_id, s.key) > (:workflow_id::text, :key::text)
ORDER BY s.workflow_id, s.key
LIMIT :limit::integer;

-- name: step_rewrite
UPDATE dbosflow.step s
SET output = :output::json, error = :error::json
WHERE s.workflow_id = :workflow_id::text AND s.key = :key::text
  AND s.output::text IS NOT DISTINCT FROM :stored_output::text AND s.error::text IS NOT DISTINCT FROM :stored_error::text
RETURNING true;

-- name: stream_block_page
SELECT b.workflow_id, b.key, b."offset", b.values::text AS stored_values, b.kind = 'values' AS is_block,
       b.kind = 'rollback' AS is_none, b.checksum
FROM dbosflow.stream_block b
WHERE (b.workflow_id, b.key, b."offset") > (:workflow_id::text, :key::text, :offset::bigint)
ORDER BY b.workflow_id, b.key, b."offset"
LIMIT :limit::integer;

-- name: stream_block_rewrite (and removes the checksum, which would tell short values)
UPDATE dbosflow.stream_block b
SET values = :values::json, checksum = NULL
WHERE b.workflow_id = :workflow_id::text AND b.key = :key::text AND b."offset" = :offset::bigint
  AND b.values::text IS NOT DISTINCT FROM :stored_values::text
RETURNING true;

-- name: stream_trim_page
SELECT t.workflow_id, t.key, t.producer, t.checksum
FROM dbosflow.stream_trim t
WHERE (t.workflow_id, t.key, t.producer) > (:workflow_id::text, :key::text, :producer::text)
ORDER BY t.workflow_id, t.key, t.producer
LIMIT :limit::integer;

-- name: stream_trim_rewrite
UPDATE dbosflow.stream_trim t
SET checksum = NULL
WHERE t.workflow_id = :workflow_id::text AND t.key = :key::text AND t.producer = :producer::text
RETURNING true;

-- name: outbox_page
SELECT o.workflow_id, o.id::text AS id, o.payload::text AS stored_payload
FROM dbosflow.outbox o
WHERE (o.workflow_id, o.id) > (:workflow_id::text, :id::uuid)
ORDER BY o.workflow_id, o.id
LIMIT :limit::integer;

-- name: outbox_rewrite
UPDATE dbosflow.outbox o
SET payload = :payload::json
WHERE o.workflow_id = :workflow_id::text AND o.id = :id::uuid AND o.payload::text = :stored_payload::text
RETURNING true;

-- name: outbox_start_page
SELECT o.queue, o.key, o.id::text AS id, o.input::text AS stored_input
FROM dbosflow.outbox_start o
WHERE (o.queue, o.key, o.id) > (:queue::text, :key::text, :id::uuid)
ORDER BY o.queue, o.key, o.id
LIMIT :limit::integer;

-- name: outbox_start_rewrite
UPDATE dbosflow.outbox_start o
SET input = :input::json
WHERE o.queue = :queue::text AND o.key = :key::text AND o.id = :id::uuid AND o.input::text = :stored_input::text
RETURNING true;

-- name: schedule_page
SELECT s.name, s.input::text AS stored_input
FROM dbosflow.schedule s
WHERE s.name > :name::text
ORDER BY s.name
LIMIT :limit::integer;

-- name: schedule_rewrite
UPDATE dbosflow.schedule s
SET input = :input::json
WHERE s.name = :name::text AND s.input::text = :stored_input::text
RETURNING true;
