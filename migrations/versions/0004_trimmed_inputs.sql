-- Where a block of an outsider was: whoever writes it again, by its name, is told so and writes nothing.
ALTER TABLE dbosflow.stream_trim ADD COLUMN "offset" bigint;  -- of an outsider's block; what the workflow wrote has none
