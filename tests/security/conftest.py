"""What the security tests share: an engine on a database of the test's own, and rows planted behind its back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An open engine in this process."""
    with Engine(database_url, lease=2.0) as engine:
        yield engine


@pytest.fixture
def execute(database_url: str) -> Callable[..., list[tuple[Any, ...]]]:
    """Runs SQL in the test's database, to plant a state or to look at one; the rows, if there are any."""

    def run(statement: str, *values: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(database_url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    return run
