"""What this process has of memory and threads, from the kernel."""

from __future__ import annotations

import os
import threading
from pathlib import Path


def resident() -> int:
    """Bytes in memory."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGESIZE")


def threads() -> int:
    """Threads, those that Python does not know included."""
    tasks = Path("/proc/self/task")
    return sum(1 for _ in tasks.iterdir()) if tasks.is_dir() else threading.active_count()
