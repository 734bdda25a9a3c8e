-- Whether the cancel that was asked for is one of what the workflow has started, too. What was asked for before was.
ALTER TABLE dbosflow.workflow ADD COLUMN cancel_children boolean;
