-- Input streams and durable loops. Only additions: older code goes on as it was.

-- What outsiders write to a workflow's inputs has epoch 0, which no owner has: each producer's block is there once.
CREATE UNIQUE INDEX stream_block_input ON dbosflow.stream_block (workflow_id, key, producer) WHERE epoch = 0;

-- A record of one item of a loop (`for_each`). Those below a loop's greatest `loop_next` are superseded: no history
-- holds them any more.
ALTER TABLE dbosflow.step
    ADD COLUMN loop_key text,                              -- the loop's own key
    ADD COLUMN loop_offset bigint,                         -- of the item in the loop's stream
    ADD COLUMN loop_next bigint;                           -- every item before this offset is done
