"""Checks what a process with an open engine holds: once work is done, no thread, task, connection or topic of it."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from psycopg_pool import AsyncConnectionPool

    from dbosflow import Engine

_NUMBER = re.compile(r"[-_]?\d+$")
_OF_WORK = ("dbosflow-run-", "dbosflow-reload-")
_PASSING_TOPICS = ("s", "w")
"""What topics of streams and workflows begin with: whoever waits for one stops listening when it has come."""

THREADS = {"MainThread": 1, "dbosflow-leases": 1, "dbosflow-watchdog": 1, "dbosflow-workflow": 64, "dbosflow-step": 32}
"""How many threads of each name a worker may have; what else there is belongs to the run, or to nobody."""
_NOT_OURS = ("chaos-", "asyncio")


def own_pool(engine: Engine) -> AsyncConnectionPool[Any]:
    """The engine's pool."""
    return _core(engine)._pool  # type: ignore[no-any-return]


def inventory(engine: Engine) -> dict[str, Any]:
    """What there is now. On the engine's loop."""
    pool = own_pool(engine).get_stats()
    return {
        "threads": Counter(_NUMBER.sub("", thread.name) for thread in threading.enumerate()),
        "work": [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith(_OF_WORK)],
        "pool": {"size": pool["pool_size"], "max": pool["pool_max"], "waiting": pool.get("requests_waiting", 0)},
        "topics": [topic for topic in _core(engine).services.wakeups._subscribers if topic.startswith(_PASSING_TOPICS)],
    }


def check_inventory(found: Mapping[str, Any], *, alone: bool = True) -> Iterator[str]:
    """Nothing is there that work leaves behind, once all work is done. ``alone``: the process has no other purpose."""
    for name, count in found["threads"].items():
        ours = name.startswith("dbosflow") or (alone and not name.startswith(_NOT_OURS))
        if ours and count > THREADS.get(name, 0):
            yield f"it has {count} threads {name!r}, and may have {THREADS.get(name, 0)}"
    if found["work"]:
        yield f"nothing runs, and it has tasks {found['work']}"
    pool = found["pool"]
    if pool["size"] > pool["max"] or pool["waiting"]:
        yield f"its pool has {pool['size']} of {pool['max']} connections, and {pool['waiting']} wait for one"
    if found["topics"]:
        yield f"nobody waits, and it listens for {found['topics']}"


def _core(engine: Engine) -> Any:
    return engine._core
