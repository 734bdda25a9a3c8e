"""The names of the queues in which pinned workflows wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from dbosflow._records import pins

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("queue", ["", "q", "a/b", "dbosflow", "é"])
def test_a_stored_queue_is_taken_apart_as_it_was_made(queue: str, execute: Callable[..., Any]) -> None:
    """Here and in SQL."""
    for version in (None, "v1", "1.2.3+é %"):
        stored = pins.stored_queue(queue, version)
        assert (pins.queue_of(stored), pins.version_of(stored)) == (queue, version)
        query = "SELECT regexp_replace(%s, '^dbosflow/pinned/[^/]*/', ''), split_part(%s, '/', 3)"
        ((found, name),) = execute(query, stored, stored)
        assert found == queue
        assert version is None or name == version
