"""Unique ids that begin with the time at which they were made."""

from __future__ import annotations

import os
import time


def new_id() -> str:
    """A unique id that begins with the time (RFC 9562, version 7), so that new rows stand together in the indexes."""
    noise = os.urandom(10).hex()
    time_part = f"{time.time_ns() // 1_000_000:012x}"
    return f"{time_part[:8]}-{time_part[8:]}-7{noise[:3]}-{_VARIANT[noise[3]]}{noise[4:7]}-{noise[7:19]}"


_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))
"""The two bits that mark the kind of id, and two random ones."""


def age_of(made: str) -> float:
    """How many seconds ago, by the clock of this process, an id was made that ``new_id`` has made."""
    return time.time() - int(made[:8] + made[9:13], 16) / 1000
