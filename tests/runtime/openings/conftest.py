"""An engine for each test of openings, and the statements that it sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine
from dbosflow._runtime.execution import openings
from tests.runtime.openings import programs
from tests.runtime.openings.faults import at_starts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from dbosflow._store.batch_rows import BatchRows


@pytest.fixture(autouse=True)
def nothing_seen(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing yet; and openings on threads are not over by time, where a test is not about that."""
    programs.begin(database_url)
    monkeypatch.setattr(openings, "_LONGEST_ON_THREAD", 3600.0)


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[Engine]:
    """One that looks for nothing by the clock."""
    async with Engine(database_url, safety_poll=3600) as engine:
        yield engine


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BatchRows]]:
    """The statements with starts."""
    sent: list[BatchRows] = []

    async def note(rows_sent: BatchRows, send: Callable[[], Awaitable[Any]]) -> Any:
        sent.append(rows_sent)
        return await send()

    with at_starts(monkeypatch, note):
        yield sent
