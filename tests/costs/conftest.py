"""Engines whose connections are read."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from dbosflow import Engine, workflow
from tests.behaviour.gate import Gate
from tests.costs.wire import Wire, wire
from tests.resting import Resting
from tests.support import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from contextlib import AbstractAsyncContextManager

NEVER = 3600.0
"""Seconds that no test takes."""
TIMELESS = {"lease": NEVER, "safety_poll": NEVER, "fast_poll": NEVER, "compact_every": None}
"""Settings with which nothing works by the clock."""


class OpenEngine(Protocol):
    """How a test opens an engine."""

    def __call__(self, **settings: Any) -> AbstractAsyncContextManager[Engine]: ...


@workflow
async def costs_nothing() -> None:
    """The shortest of all."""


@pytest.fixture
def line(database_url: str) -> Iterator[Wire]:
    """The wire before the test's database."""
    with wire(database_url) as before:
        yield before


@pytest.fixture
def open_engine(line: Wire, monkeypatch: pytest.MonkeyPatch) -> OpenEngine:
    """Engines on that wire, which have run one workflow, if they run any, listen, and have nothing left to do."""
    at_rest = Resting(monkeypatch)

    @asynccontextmanager
    async def opened(**settings: Any) -> AsyncIterator[Engine]:
        async with Engine(line.url, **TIMELESS | settings) as engine:
            if settings.get("executes", True):
                await engine.run_async(costs_nothing)
            await eventually_async(at_rest)
            yield engine

    return opened


@pytest.fixture
def gate() -> Gate:
    """For workflows that go on when they are let."""
    return Gate()
