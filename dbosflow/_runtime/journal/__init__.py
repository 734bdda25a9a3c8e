"""Group commit with output-commit order: one statement for the records of many runs."""
