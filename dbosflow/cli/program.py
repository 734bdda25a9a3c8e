"""This program as a process to be started: how a command starts another one, and hears that its starter is gone."""

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
    """The command line of the same dbosflow as this one; the current directory has no say in which one that is."""
    home = Path(dbosflow.__file__).parents[1]
    python = [sys.executable] if home == Path.cwd() else [sys.executable, "-P"]
    return [*python, "-m", "dbosflow"]


def watch_eof(loop: asyncio.AbstractEventLoop, on_eof: Callable[[], None]) -> None:
    """Calls ``on_eof`` on the loop when standard input ends.

    It ends with whoever holds its other end, however that ends: a parent cannot forget it, even when it is killed.
    """

    def read_to_the_end() -> None:
        # Not by way of sys.stdin, whose lock would be held when the interpreter ends.
        while os.read(0, 4096):
            pass
        with contextlib.suppress(RuntimeError):  # the loop is closed: stopped already
            loop.call_soon_threadsafe(on_eof)

    threading.Thread(target=read_to_the_end, name="dbosflow-stdin", daemon=True).start()
