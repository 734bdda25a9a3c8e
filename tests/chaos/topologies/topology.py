"""A topology: how the processes of a run reach their database, how else they are configured, and faults of its own.

The plain one is here. In ``pgbouncer`` a pooler stands between, in ``standby`` there are two servers, and in
``clock_skew`` the wall clocks of processes are wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tests.chaos.checkers.sessions import check_listeners, check_sessions
from tests.chaos.nemeses import plan
from tests.chaos.nemeses.proxy import Proxy
from tests.chaos.nodes.postgres import Postgres
from tests.chaos.nodes.processes import ProgramConfig

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Self

    from tests.chaos.nemeses.plan import Fault


class Server(Protocol):
    """The database of a run, which may be stopped in every way and started again."""

    @property
    def root(self) -> Path:
        """Where everything of the run is."""

    def url(self, name: str) -> str:
        """Its own address, for sessions that carry the ``name``."""

    def start(self) -> None:
        """Starts it; returns when it answers."""

    def stop(self, how: str) -> None:
        """Stops it in one of the ways of ``postgres.STOPS``."""

    def crash_backend(self, pid: int) -> None:
        """Kills one of its processes; returns when it answers again."""

    def discard(self) -> None:
        """Removes all that it left."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Route(Protocol):
    """A route of processes to the database, into which faults are injected."""

    def url(self, name: str) -> str:
        """The address for sessions that carry the ``name``."""

    def inject(self, kind: str, seconds: float) -> None:
        """Injects one fault of the plan; returns when it is over."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Topology:
    """One server. Programs reach it by its socket, or by a proxy before that."""

    kinds: Mapping[str, int] = {}
    """The faults that only it knows, with their weights in the plan."""

    def __init__(self, server: Server | None = None) -> None:
        self.server: Server = server or Postgres()

    def missing(self) -> str | None:
        """What it needs and is not here."""
        return None

    def weights(self) -> Mapping[str, int]:
        """The faults of a run, with their weights in its plan."""
        return plan.KINDS | dict(self.kinds)

    def url(self, name: str) -> str:
        """The address of a program that no proxy stands before."""
        return self.server.url(name)

    def route(self) -> Route:
        """One more route to the database, into which faults may be injected."""
        assert isinstance(self.server, Postgres)
        return Proxy(self.server.socket)

    def config(self, name: str, index: int) -> ProgramConfig:
        """How the process ``name`` is configured, which has this ``index`` among those of its program."""
        return ProgramConfig()

    async def inject(self, fault: Fault) -> None:
        """Injects a fault of its own ``kinds``; returns when everything is back."""
        raise NotImplementedError(fault.kind)

    def wrong_sessions(self, live: Mapping[str, int]) -> list[str]:
        """What is wrong with the server's sessions, where each of the ``live`` programs may have so many."""
        url = self.server.url("looking")
        return check_sessions(url, live) + check_listeners(url)

    def figures(self) -> list[str]:
        """What there is to tell about its own faults."""
        return []

    def __enter__(self) -> Self:
        self.server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.__exit__()
