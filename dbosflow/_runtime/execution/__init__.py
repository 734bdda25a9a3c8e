"""A run, which is one owner's pass over one workflow, and what drives it."""
