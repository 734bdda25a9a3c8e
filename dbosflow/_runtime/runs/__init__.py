"""What a run hands to the journal: entries, their keys, and the buffer that holds them."""
