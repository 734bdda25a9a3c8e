"""The testing kit, tested on the server that all tests use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dbosflow import Engine
from dbosflow.testing.server import SERVER_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _server(admin_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kit makes its databases."""
    monkeypatch.setenv(SERVER_VARIABLE, admin_url)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An open engine in this process, hosted on a thread."""
    with Engine(database_url) as engine:
        yield engine
