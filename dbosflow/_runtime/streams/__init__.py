"""What is written to streams, by runs and by outsiders, and the cursors of their readers."""
