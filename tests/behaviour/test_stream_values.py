"""Any JSON value is a value: none is a sentinel, none is changed on its way, and what is no JSON is refused."""

from __future__ import annotations

import json
import math
import struct
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from dbosflow import Engine, step, workflow, write_stream, write_stream_async
from dbosflow.errors import SerializationError
from tests.behaviour.tables import rows, stored_values

if TYPE_CHECKING:
    from tests.behaviour.conftest import StartProgram

PATIENCE = 60.0

VALUES: list[Any] = [
    None,
    "",
    0,
    -0.0,
    False,
    [],
    {},
    [[]],
    {"": None},
    [None, [None, {"a": [None]}]],
    "nul \0 inside",
    "\0",
    "lone \ud800 surrogate",
    "\udfff\ud800",
    "🌍 ünï \u2028 \u2029 \x7f \x1b",
    '"quoted\\" \\u0041 \\n',
    "</script><!--",
    2**63,
    -(2**64) - 1,
    10**400,
    5e-324,
    1.7976931348623157e308,
    0.1,
    1.0,
    1e22,
    "NaN",
    "Infinity",
    "null",
    "[]",
    "__DBOS_STREAM_CLOSED__",
    "complete",
    {"kind": "complete"},
    {"closed": True, "error": None, "offset": -1},
    {"type": "StreamClosedError", "module": "dbosflow.errors", "args": [], "message": ""},
    {"key with \0": "and \ud800"},
    {"b": 1, "a": 2, "B": 3},
    "x" * 100_000,
    list(range(10_000)),
    json.loads("[" * 100 + "]" * 100),
]


class Reading(BaseModel):
    """A typed value."""

    at: datetime
    celsius: float


@workflow
async def writing_values() -> None:
    for value in VALUES:
        await write_stream_async("k", value)


@workflow
def writing_values_on_thread() -> None:
    for value in VALUES:
        write_stream("k", value)


def same(a: Any, b: Any) -> bool:
    """Equal, of the same types all the way down, with the same signs and the same order of keys."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return bool(a == b) and (not isinstance(a, float) or math.copysign(1, a) == math.copysign(1, b))


@pytest.mark.parametrize("flow", [writing_values, writing_values_on_thread], ids=["async", "sync"])
def test_every_stream_value_comes_back_as_it_was_written(database_url: str, engine: Engine, flow: Any) -> None:
    """Also what looks like an end of stream, an error or a frame; and each can be resumed behind."""
    engine.run(flow.options(workflow_id="w"))
    values, closed = engine.read_stream("w", "k").read_all()
    assert closed
    assert len(values) == len(VALUES)
    for written, read in zip(VALUES, values, strict=True):
        assert same(written, read), f"{written!r:.100} came back as {read!r:.100}"
    for offset in range(len(VALUES)):
        assert same(next(engine.read_stream("w", "k", start=offset)), VALUES[offset])
    assert len(stored_values(database_url, "w", "k")) == len(VALUES), "and is readable in psql"


def test_stream_values_come_back_in_another_process(start_program: StartProgram, engine: Engine) -> None:
    """A reader that shares nothing but the database gets the same."""
    engine.run(writing_values.options(workflow_id="w"))
    reader = start_program("reader", id="w", key="k")
    for offset, value in enumerate(VALUES):
        said = reader.receive()
        assert said[0] == offset
        assert same(said[1], value)
    assert reader.receive() == {"end": len(VALUES), "closed": True, "error": None}


def test_one_bad_value_breaks_no_listing(database_url: str, engine: Engine) -> None:
    """Payloads are ``json`` columns: no NUL, surrogate or huge number stops a look at the tables."""
    engine.run(writing_values.options(workflow_id="w"))
    assert [(one.key, one.tail, one.state) for one in engine.streams.list("w")] == [("k", len(VALUES) + 1, "complete")]
    query = "SELECT count(*), count(value::text) FROM dbosflow.stream_value"
    assert rows(database_url, query) == [(len(VALUES), len(VALUES))]


REFUSED: list[Any] = [
    float("nan"),
    float("-inf"),
    {"deep": [1, float("nan")]},
    object(),
    struct,
    lambda: None,
]


@pytest.mark.parametrize("position", range(len(REFUSED)))
def test_a_value_that_is_no_json_is_refused_where_it_is_written(engine: Engine, position: int) -> None:
    """The write raises, in the body and in a step; the stream has no trace of it, and goes on."""

    @step
    def in_step() -> None:
        with pytest.raises(SerializationError, match="stream"):
            write_stream("k", REFUSED[position])

    @workflow
    async def flow() -> None:
        await write_stream_async("k", "before")
        with pytest.raises(SerializationError, match="stream"):
            await write_stream_async("k", REFUSED[position])
        await in_step.run_async()
        await write_stream_async("k", "after")

    handle = engine.start(flow)
    handle.result(timeout=PATIENCE)
    assert engine.read_stream(handle.workflow_id, "k").read_all() == (["before", "after"], True)


def test_a_typed_reader_gets_typed_values(engine: Engine) -> None:
    """The writer writes models or plain JSON; ``type=`` says what a reader makes of it."""
    readings = [Reading(at=datetime(2024, 1, day, tzinfo=UTC), celsius=day / 2) for day in (1, 2, 3)]

    @workflow
    async def flow() -> None:
        for reading in readings:
            await write_stream_async("models", reading)
            await write_stream_async("dates", reading.at.date())

    engine.run(flow.options(workflow_id="w"))
    assert engine.read_stream("w", "models", type=Reading).read_all() == (readings, True)
    assert list(engine.read_stream("w", "dates", type=date, start=1)) == [date(2024, 1, 2), date(2024, 1, 3)]
    assert next(engine.read_stream("w", "models")) == {"at": "2024-01-01T00:00:00Z", "celsius": 0.5}


def test_a_value_that_does_not_fit_the_readers_type_is_an_error_of_the_reader(engine: Engine) -> None:
    """It names the stream and the type. Another reader has nothing to do with it."""
    engine.run(writing_values.options(workflow_id="w"))
    with pytest.raises(SerializationError, match=r"stream 'k' of workflow 'w'"):
        engine.read_stream("w", "k", type=Reading).read_all()
    assert len(engine.read_stream("w", "k").read_all()[0]) == len(VALUES)


def test_stream_keys_are_any_text(engine: Engine) -> None:
    """A key needs no escaping, and is its own stream."""
    keys = ["k", "K", "ünï/cödé", "w", "%s", "a'b\"c\\d;--", "\x1f", "k\x1fk", " ", "x" * 512]

    @workflow
    async def flow() -> None:
        for key in keys:
            await write_stream_async(key, key)

    engine.run(flow.options(workflow_id="w"))
    for key in keys:
        assert engine.read_stream("w", key).read_all() == ([key], True)
    assert sorted(one.key for one in engine.streams.list("w")) == sorted(keys)
