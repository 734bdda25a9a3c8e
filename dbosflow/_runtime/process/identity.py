"""The identity of a process, by which a peer on the same host can find out that it is gone.

A pid alone is no identity: pids are used again, and containers count their own. The kernel's boot id, the pid namespace
and the start time of the process make it one process of one boot. Where the system has no ``/proc``, nothing is known,
and only the lease decides.
"""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path

from dbosflow._store.worker import ProcessIdentity

_START_TIME_FIELD = 19  # field 22 of /proc/<pid>/stat, counted behind the command's closing parenthesis


def this_process() -> ProcessIdentity:
    """The identity of the calling process."""
    return _identity(os.getpid())


def is_local(process: ProcessIdentity) -> bool:
    """Whether ``process`` lives where its pid can be looked up from here."""
    own = this_process()
    return (
        process.boot_id is not None
        and process.process_started_at is not None
        and (process.boot_id, process.pid_namespace) == (own.boot_id, own.pid_namespace)
    )


def has_vanished(process: ProcessIdentity) -> bool:
    """Whether ``process``, a local one, is certainly gone."""
    return _started_at(process.pid) != process.process_started_at


@cache  # by pid: a forked child asks for its own
def _identity(pid: int) -> ProcessIdentity:
    return ProcessIdentity(
        host=socket.gethostname(),
        boot_id=_read("/proc/sys/kernel/random/boot_id"),
        pid_namespace=_link("/proc/self/ns/pid"),
        pid=pid,
        process_started_at=_started_at(pid),
    )


def _started_at(pid: int) -> str | None:
    """The start time of a running process in clock ticks since boot; ``None`` for a zombie, which runs no more."""
    stat = _read(f"/proc/{pid}/stat")
    if stat is None:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[_START_TIME_FIELD]


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text("ascii", errors="replace").strip()
    except OSError:
        return None


def _link(path: str) -> str | None:
    try:
        return str(Path(path).readlink())
    except OSError:
        return None
