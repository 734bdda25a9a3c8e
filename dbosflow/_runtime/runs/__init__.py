"""The state of a run, and what it hands to the journal: entries, and the buffer that holds them."""
