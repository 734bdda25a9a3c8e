"""What a value costs to be carried: how often it is written as JSON and read again, whatever it is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel

from dbosflow.serde import Codec


class Reading(BaseModel):
    """A small model."""

    at: datetime
    celsius: float


PLAIN: dict[str, tuple[Any, Any]] = {
    "text": (str, "token"),
    "undeclared text": (Any, "token"),
    "number": (int, 7),
    "nothing": (Any, None),
    "undeclared data": (Any, {"a": [1, "x", None, {"b": 2.5}]}),
}
TYPED: dict[str, tuple[Any, Any]] = {
    "model": (Reading, Reading(at=datetime.now(UTC), celsius=0.5)),
    "models": (list[Reading], [Reading(at=datetime.now(UTC), celsius=0.5)] * 3),
    "declared data": (dict[str, list[int]], {"a": [1, 2]}),
    "undeclared tuple": (Any, (1, 2)),
}


def counted(annotation: Any) -> tuple[Codec[Any], list[str]]:
    """A codec, and a list that gets a word for each time that pydantic writes or reads."""
    codec, calls = Codec[Any](annotation, "it"), list[str]()
    write, read = codec._write, codec._read

    def writing(*args: Any, **options: Any) -> bytes:
        calls.append("write")
        return write(*args, **options)

    def reading(*args: Any, **options: Any) -> Any:
        calls.append("read")
        return read(*args, **options)

    codec._write, codec._read = writing, reading
    return codec, calls


@pytest.mark.parametrize("which", PLAIN)
def test_what_is_json_already_is_written_once_and_not_read(which: str) -> None:
    """A token of a stream, a number of a step: most values are that."""
    annotation, value = PLAIN[which]
    codec, calls = counted(annotation)
    codec.dump(value)
    assert calls == ["write"]


@pytest.mark.parametrize("which", TYPED)
def test_what_is_more_is_written_once_and_read_once(which: str) -> None:
    """To be compared; a step's result goes on as what was read then."""
    annotation, value = TYPED[which]
    codec, calls = counted(annotation)
    codec.dump(value)
    assert calls == ["write", "read"]
    codec.round_trip(value)
    assert calls == ["write", "read"] * 2
