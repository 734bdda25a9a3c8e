"""Each test that asks for a colour runs over all four."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.streams.colours import AsyncSource, Colour, CountingChannel, CountingReader, Source

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["iterable", "reader", "async iterable", "channel"])
def colour(request: pytest.FixtureRequest) -> Iterator[Colour]:
    """A kind of source."""
    if request.param in {"iterable", "reader"}:
        yield Colour({"iterable": Source, "reader": CountingReader}[request.param], None)
        return
    with asyncio.Runner() as runner:
        yield Colour({"async iterable": AsyncSource, "channel": CountingChannel}[request.param], runner)
