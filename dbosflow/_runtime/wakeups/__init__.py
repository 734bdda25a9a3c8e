"""Hints: topics within a process, NOTIFY and LISTEN between processes. Only speed depends on them."""
