"""Pytest fixtures.

A project enables them in its top ``conftest.py``:

```python
pytest_plugins = ["dbosflow.testing.fixtures"]
```

| fixture | scope | value |
|---|---|---|
| ``dbosflow_server`` | session | the URL of a server for tests; override the fixture to use another one |
| ``dbosflow_database`` | test | the URL of a fresh, migrated database, which is dropped afterwards |
| ``clock`` | test | the clock of the engine's sleeps: ``clock.advance(seconds)`` |
| ``engine`` | test | an open engine with that database and that clock |
| ``drain`` | test | ``drain()`` waits until no workflow is running or queued |

An async test opens an engine on its own loop, with ``async with Engine(dbosflow_database)``, and installs the clock:
``clock.install(engine)``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

import pytest

from dbosflow.engine import Engine
from dbosflow.filters import WorkflowFilter
from dbosflow.testing.clock import MovableClock
from dbosflow.testing.server import fresh_database, shared_server
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbosflow.types import WorkflowInfo

_GLANCE = 0.01
"""Seconds between two looks whether what a test has started is over."""
_UNDER_WAY = (WorkflowStatus.RUNNING, WorkflowStatus.QUEUED, WorkflowStatus.SCHEDULED, WorkflowStatus.WAITING)
_NAMED = 5
"""Workflows that are named of those which a test has left under way."""


class Drain(Protocol):
    """The type of the fixture ``drain``."""

    def __call__(self, *, timeout: float = 30.0) -> None:
        """Waits until no workflow of the test's database is running or queued. Blocked ones may be left.

        Args:
            timeout: how long to wait, in seconds.

        Raises:
            AssertionError: some workflows are left after ``timeout`` seconds. The message names them.
        """


@pytest.fixture(scope="session")
def dbosflow_server() -> str:
    """The URL of a server where the role may create databases: ``DBOSFLOW_TEST_DATABASE_URL``, or an embedded one."""
    return shared_server()


@pytest.fixture
def dbosflow_database(dbosflow_server: str) -> Iterator[str]:
    """The URL of a fresh, migrated database for the test."""
    with fresh_database(dbosflow_server) as url:
        yield url


@pytest.fixture
def clock() -> MovableClock:
    """The clock of durable sleeps and of the pauses between attempts in the test's engine."""
    return MovableClock()


@pytest.fixture
def engine(dbosflow_database: str, clock: MovableClock) -> Iterator[Engine]:
    """An open engine on a thread of its own. It closes without grace: what still runs is abandoned."""
    with Engine(dbosflow_database, grace=0.0, compact_every=None) as engine:
        clock.install(engine)
        yield engine


@pytest.fixture
def drain(engine: Engine, clock: MovableClock) -> Drain:
    """A function that waits until no workflow is running or queued."""

    def drain(*, timeout: float = 30.0) -> None:
        deadline = time.monotonic() + timeout
        while left := _left(engine) or _left(engine):  # the second look sees what changed during the first
            if time.monotonic() > deadline:
                raise AssertionError(_complaint(left, clock, timeout))
            time.sleep(_GLANCE)

    return drain


def _left(engine: Engine) -> list[WorkflowInfo]:
    return [info for status in _UNDER_WAY for info in engine.list_workflows(WorkflowFilter(status, limit=_NAMED))]


def _complaint(left: list[WorkflowInfo], clock: MovableClock, timeout: float) -> str:
    named = ", ".join(f"{info.name} {info.id!r} ({info.status})" for info in left[:_NAMED])
    more = ", and others" if len(left) > _NAMED else ""
    asleep = f"; {clock.sleepers} sleep: clock.advance(seconds) ends that" if clock.sleepers else ""
    return f"not all is done after {timeout:g} s: {named}{more}{asleep}"
