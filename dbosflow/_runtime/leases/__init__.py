"""Who owns what: a worker's row, its renewal, and what is taken from the dead."""
