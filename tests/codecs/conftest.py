"""Engines whose payloads are encrypted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dbosflow import Engine
from tests.codecs.keys import CHAIN

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine that compresses and encrypts."""
    with Engine(database_url, codecs=CHAIN) as engine:
        yield engine
