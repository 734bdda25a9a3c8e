"""What the security tests share: an engine on a database of the test's own, and rows planted behind its back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dbosflow import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An open engine in this process."""
    with Engine(database_url, lease=2.0) as engine:
        yield engine
