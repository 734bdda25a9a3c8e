"""What runs and outside writers write to streams, and the cursors of the readers."""
