"""Engines whose connections are read."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from dbosflow import Engine, workflow
from tests.behaviour.gate import Gate
from tests.costs.wire import Message, Wire, wire
from tests.support import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

NEVER = 3600.0
"""Seconds that no test takes: what works by the clock has nothing to do."""


_LOOKS = {"claim.claim", "workflow.next_due", "workflow.requeue"}
"""What an executing engine looks for when it begins to listen."""


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
def open_engine(line: Wire) -> OpenEngine:
    """Engines on that wire, which have run one workflow, if they run any, and listen to what others notify."""

    @asynccontextmanager
    async def opened(**settings: Any) -> AsyncIterator[Engine]:
        place = len(line.messages)
        at_rest = {"lease": NEVER, "safety_poll": NEVER, "compact_every": None} | settings
        async with Engine(line.url, **at_rest) as engine:
            if engine_runs := settings.get("executes", True):
                await engine.run_async(costs_nothing)
            await eventually_async(lambda: _have_looked_again(line.since(place).messages, executes=engine_runs))
            await eventually_async(lambda: not engine_runs or line.since(place).executed["notify.notify"])
            yield engine

    return opened


def _have_looked_again(messages: Sequence[Message], *, executes: bool) -> bool:
    """Whether the engine listens, and what it was not told of before has been looked for, once."""
    listens = next((place for place, one in enumerate(messages) if one.session.role == "listener"), None)
    if listens is None:
        return False
    return not executes or {one.statement for one in messages[listens:]} >= _LOOKS


@pytest.fixture
def gate() -> Gate:
    """For workflows that go on when they are let."""
    return Gate()
