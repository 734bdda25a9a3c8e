"""What a worker is told to serve is checked before it claims anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from dbosflow.errors import ConfigurationError
from dbosflow.workers import serving_of
from tests.behaviour.test_wrong_queues import MAPPINGS, NAMES, NUMBERS

if TYPE_CHECKING:
    from collections.abc import Callable

DOORS: dict[str, tuple[Callable[[Any], object], list[Any]]] = {
    "queue": (lambda value: serving_of((value,), 1, None, None), NAMES),
    "concurrency": (lambda value: serving_of(("q",), value, None, None), NUMBERS),
    "weights": (lambda value: serving_of(("q",), 1, value, None), MAPPINGS),
    "weight": (lambda value: serving_of(("q",), 1, {"q": value}, None), NUMBERS),
    "limits": (lambda value: serving_of(("q",), 1, None, value), MAPPINGS),
    "limit": (lambda value: serving_of(("q",), 1, None, {"q": value}), NUMBERS),
}


@pytest.mark.parametrize("door", DOORS)
def test_what_a_worker_cannot_serve_is_told_in_a_line(door: str) -> None:
    """However long it is."""
    way, values = DOORS[door]
    for value in values:
        with pytest.raises(ConfigurationError) as told:
            way(value)
        assert 10 < len(str(told.value)) < 500
