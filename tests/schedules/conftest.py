"""What tests of schedules need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.schedules.world import World, world_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    """Schedulers of a database of the test's own, with a clock that it sets."""
    async with world_on(database_url) as world:
        yield world
