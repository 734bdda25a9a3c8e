"""PgBouncer in transaction mode stands between processes and server; its nemesis kills, restarts, freezes, pauses it.

Every second process has a direct route to LISTEN (``listen_url``); the others poll.
"""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, LiteralString
from urllib.parse import quote

import psycopg

from tests import pooler
from tests.chaos.nemeses.proxy import Proxy
from tests.chaos.nodes.processes import ProgramConfig
from tests.chaos.topologies.topology import Topology
from tests.pooler import Pooler, find_program

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from tests.chaos.nemeses.plan import Fault
    from tests.chaos.topologies.topology import Route

_POOL_SIZE = 8
_SESSIONS: LiteralString = """
    SELECT application_name, pid, state FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'chaos-%' AND backend_type = 'client backend'"""


def check_sessions(url: str, live: Mapping[str, int]) -> list[str]:
    """No more sessions than the pooler and the live programs may have; none idles in a transaction."""
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(_SESSIONS).fetchall()
    wrong = [f"session {pid} of {name} is {state}" for name, pid, state in found if str(state).startswith("idle in")]
    if len(found) > _POOL_SIZE + len(live):
        wrong.append(f"{len(found)} sessions, and there may be {_POOL_SIZE} of the pooler and {len(live)} besides")
    return wrong


class PgBouncerTopology(Topology):
    """The server behind a pooler, and the faults of the pooler."""

    kinds: Mapping[str, int] = {
        "pooler kill": 2,  # SIGKILL, and another one in its place
        "pooler restart": 2,  # SIGTERM, and another one in its place
        "pooler freeze": 2,  # SIGSTOP, then SIGCONT
        "pooler pause": 2,  # PAUSE, as an administrator does before a failover, then RESUME
    }

    def __init__(self) -> None:
        super().__init__()
        self._resources = ExitStack()
        self._pooler: Pooler | None = None

    def missing(self) -> str | None:
        return pooler.MISSING if find_program() is None else None

    def url(self, name: str) -> str:
        socket = self._running.socket
        place = f"host={quote(str(socket.parent), safe='')}&port={socket.suffix[1:]}"
        return f"postgresql://dbosflow@/postgres?{place}&application_name={name}"

    def route(self) -> Route:
        return Proxy(self._running.socket)

    def config(self, name: str, index: int) -> ProgramConfig:
        return ProgramConfig({"listen_url": self.server.url(name)} if index % 2 else {})

    async def inject(self, fault: Fault) -> None:
        await asyncio.to_thread(self._inject, fault)

    def wrong_sessions(self, live: Mapping[str, int]) -> list[str]:
        """The pooler's own sessions carry the names of whoever used them last; besides them programs may listen."""
        return check_sessions(self.server.url("looking"), live)

    @property
    def _running(self) -> Pooler:
        assert self._pooler
        return self._pooler

    def _inject(self, fault: Fault) -> None:
        if fault.kind == "pooler freeze":
            self._running.freeze(fault.seconds)
        elif fault.kind == "pooler pause":
            self._running.order("PAUSE")
            time.sleep(fault.seconds)  # the fault itself
            self._running.order("RESUME")
        else:
            self._running.end(signal.SIGKILL if fault.kind == "pooler kill" else signal.SIGTERM)
            time.sleep(fault.seconds)  # the fault itself
            self._running.start()

    def __enter__(self) -> Self:
        super().__enter__()
        program = find_program()
        assert program
        self._pooler = self._resources.enter_context(
            Pooler(program, self.server.url("pooler"), pool_size=_POOL_SIZE),
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()
        super().__exit__()
