"""Which copy of the process this is: a fork copies event loops and sockets, and only the one that has them may go on.

The forked process may do what it likes with its copy of memory, and nothing with what it shares: connections, and the
kernel's list of what a loop waits for. So code that forks on a loop must not come back to it there.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import NoReturn

logger = logging.getLogger("dbosflow.run")


class _Process:
    """The identity of this process among forked ones, kept since asking the kernel takes as long as a start."""

    number = 0


process = _Process()


def _count_fork() -> None:
    process.number += 1


os.register_at_fork(after_in_child=_count_fork)


def leave_copy() -> NoReturn:
    """Ends a process whose code comes back to its parent's loop, as by ``sys.exit()``. It touches nothing."""
    error = sys.exc_info()[1]
    code = error.code if isinstance(error, SystemExit) else "its code has come back to the event loop of its parent"
    if not isinstance(code, int | None):
        raised = None if isinstance(error, SystemExit | StopIteration) else error
        logger.error("a process that was forked in a workflow ends: %s; end it by os._exit", code, exc_info=raised)
        code = 1
    with suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code or 0)
