-- What a replay writes again is compared with what is there. Rows that are there already, and what older code goes on to
-- write, have none: those are not compared.
ALTER TABLE dbosflow.stream_block ADD COLUMN checksum integer;  -- of all values of its producer up to its last one
ALTER TABLE dbosflow.stream_trim ADD COLUMN checksum integer;   -- of all of them up to the last one that is gone
