"""This program as a child process: how a command starts another one, and how that notices the end of its parent."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import dbosflow

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


def dbosflow_command() -> list[str]:
    """The command line of this same dbosflow, whatever the current directory contains."""
    home = Path(dbosflow.__file__).parents[1]
    python = [sys.executable] if home == Path.cwd() else [sys.executable, "-P"]
    return [*python, "-m", "dbosflow"]


def watch_eof(loop: asyncio.AbstractEventLoop, on_eof: Callable[[], None]) -> None:
    """Calls ``on_eof`` on the loop when standard input ends.

    It ends when the process at its other end does, in whatever way. So a parent need do nothing for it, and it also
    works when the parent is killed.
    """

    def read_to_the_end() -> None:
        # Not with sys.stdin, whose lock would be held when the interpreter ends.
        while os.read(0, 4096):
            pass
        with contextlib.suppress(RuntimeError):  # the loop is closed, so the process is stopping already
            loop.call_soon_threadsafe(on_eof)

    threading.Thread(target=read_to_the_end, name="dbosflow-stdin", daemon=True).start()
