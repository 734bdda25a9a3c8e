"""An engine, and clients of its HTTP application."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import httpx
import pytest

from dbosflow import Engine
from dbosflow.http import create_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[Engine]:
    """An engine on the test's loop."""
    async with Engine(database_url, grace=0.1) as engine:
        yield engine


@pytest.fixture
async def client(engine: Engine) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application that serves the streams ``tokens``, from this machine."""
    app = create_app(engine, streams=["tokens"])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        yield client


@pytest.fixture
def connections() -> int:
    """How many clients come and go in the test of leaks: more by ``DBOSFLOW_TEST_CONNECTIONS``."""
    return int(os.environ.get("DBOSFLOW_TEST_CONNECTIONS", "400"))
