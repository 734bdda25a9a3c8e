"""Hints: topics within a process, NOTIFY and LISTEN between processes. Nothing depends on them but speed."""
