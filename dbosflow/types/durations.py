"""Lengths of time."""

from __future__ import annotations

LONGEST_DURATION = 36525 * 24 * 3600.0
"""In seconds: a hundred years, which both Python's timers and Postgres's intervals can hold."""
