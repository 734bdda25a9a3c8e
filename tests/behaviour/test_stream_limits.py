"""What a stream, a value and a buffer may hold: a write above it is refused before anything of it is written."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, for_each_async, read_input_async, step, workflow, write_stream, write_stream_async
from dbosflow.errors import (
    ConfigurationError,
    StreamBackPressureError,
    StreamError,
    StreamFullError,
    StreamValueTooLargeError,
)
from tests.behaviour.tables import disorder, rows, stored_values
from tests.behaviour.test_back_pressure import stuck
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.behaviour.gate import Gate

PATIENCE = 60.0
gates: dict[str, Gate] = {}
passes: dict[str, list[list[int]]] = {}
"""What each pass over a workflow was refused: the numbers of the values."""


@step
async def wait_at_gate(which: str) -> None:
    await gates[which].passed()


@workflow
async def tries_ten(which: str) -> list[int]:
    """Writes ten values of ten bytes, and goes on after each that is refused."""
    refused: list[int] = []
    passes.setdefault(which, []).append(refused)
    for number in range(10):
        try:
            await write_stream_async("k", f"{number:08}")
        except StreamError:
            refused.append(number)
    if which in gates:
        await wait_at_gate(which)
    return list(refused)


@workflow
def tries_ten_on_thread() -> list[int]:
    refused = []
    for number in range(10):
        try:
            write_stream("k", f"{number:08}")
        except StreamError:
            refused.append(number)
    return refused


@pytest.mark.parametrize("limit", [{"stream_values": 4}, {"stream_bytes": 45}], ids=str)
def test_a_stream_that_has_had_enough_is_full(database_url: str, limit: Any) -> None:
    """What is above the limit is refused, by number or by size, in both colours; what is below is there."""
    four = [f"{number:08}" for number in range(4)]
    with Engine(database_url, **limit) as engine:
        for flow in (tries_ten.options(workflow_id="loop"), tries_ten_on_thread.options(workflow_id="thread")):
            args = ["no gate"] if flow.workflow_id == "loop" else []
            assert engine.start(flow, *args).result(PATIENCE) == [4, 5, 6, 7, 8, 9]
            assert engine.read_stream(str(flow.workflow_id), "k").read_all() == (four, True)
    assert disorder(database_url) == []


@workflow
async def writes_one(value: Any) -> str:
    try:
        await write_stream_async("k", value)
    except StreamValueTooLargeError as error:
        return str(error)
    return "written"


def test_a_value_is_measured_as_json_in_utf_8(database_url: str) -> None:
    """Its quotes count, and so does each byte of a character."""
    with Engine(database_url, value_bytes=10) as engine:
        assert engine.run(writes_one, "x" * 8) == "written"
        assert engine.run(writes_one, "é" * 4) == "written"
        assert "11 bytes is too large" in engine.run(writes_one, "x" * 9)
        assert "12 bytes is too large" in engine.run(writes_one, "é" * 5)


@step
async def fills() -> None:
    for number in range(3):
        await write_stream_async("k", number)


@workflow
async def fills_by_step() -> str:
    try:
        await fills()
    except StreamFullError:
        return "full"
    return "written"


def test_a_step_that_passes_a_streams_limit_fails(database_url: str) -> None:
    """What its attempt wrote before is rolled back."""
    with Engine(database_url, stream_values=2) as engine:
        assert engine.start(fills_by_step.options(workflow_id="w")).result(PATIENCE) == "full"
        assert engine.read_stream("w", "k").read_all() == ([], True)


@pytest.mark.parametrize("later", [{}, {"stream_values": 4}, {"stream_values": 1}], ids=str)
def test_a_replay_is_refused_what_the_first_pass_was(database_url: str, later: Any, gate: Gate) -> None:
    """Whatever the limit is by then: what is durable is never refused, what was refused is refused again."""
    which = f"later {later}"
    gates[which] = gate
    with Engine(database_url, stream_values=4, grace=0) as engine:
        engine.start(tries_ten.options(workflow_id="w"), which)
        reader = engine.read_stream("w", "k", timeout=PATIENCE)
        assert [next(reader) for _ in range(4)] == [f"{number:08}" for number in range(4)]
        eventually(lambda: passes[which] == [[4, 5, 6, 7, 8, 9]], timeout=PATIENCE)
    with Engine(database_url, **later) as engine:
        gate.open()
        assert engine.handle("w").result(PATIENCE) == [4, 5, 6, 7, 8, 9]
        assert len(passes[which]) == 2
        assert passes[which][0] == passes[which][1]
        assert len(engine.read_stream("w", "k").read_all()[0]) == 4
    assert disorder(database_url) == []


LARGE = "x" * 1000
refused = threading.Event()


@workflow
async def pressed() -> str:
    return await pressing()


@workflow
def pressed_on_thread() -> str:
    for number in range(100):
        try:
            write_stream("k", LARGE)
        except StreamBackPressureError:
            refused.set()
            return f"stopped at {number}"
    return "done"


@workflow
async def pressed_branches() -> str:
    return min(await asyncio.gather(pressing(), pressing()))


async def pressing() -> str:
    for number in range(1000):
        try:
            await write_stream_async("k", LARGE)
        except StreamBackPressureError:
            refused.set()
            return f"stopped at {number}"
    return "done"


@step
async def pressing_step() -> str:
    return await pressing()


@workflow
async def pressed_step() -> str:
    return await pressing_step()


@pytest.mark.parametrize(
    "flow", [pressed, pressed_on_thread, pressed_branches, pressed_step], ids=["async", "sync", "branches", "step"]
)
def test_a_writer_waits_for_the_database_only_so_long(database_url: str, flow: Any) -> None:
    """After the timeout its error says what to do; the refused value is not written, and the workflow goes on."""
    refused.clear()
    with Engine(database_url, buffer_bytes=10_000, buffer_timeout=0.2, lease=60) as engine:
        with stuck(database_url):
            handle = engine.start(flow.options(workflow_id="w"))
            assert refused.wait(PATIENCE)
        result = handle.result(PATIENCE)
        values, closed = engine.read_stream("w", "k").read_all()
    assert closed
    if flow is not pressed_branches:
        assert result == f"stopped at {len(values)}"
    assert disorder(database_url) == []


@pytest.mark.parametrize(
    "wrong", [{"stream_values": 0}, {"stream_bytes": -1}, {"value_bytes": 0}, {"buffer_timeout": 0}], ids=str
)
def test_a_limit_of_streams_that_nothing_could_meet_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Engine("postgresql://localhost/none", **wrong)


# -- what outsiders write ----------------------------------------------------------------------------------------------


@workflow(inputs=["in"])
async def taking(which: str) -> list[Any]:
    """Takes what comes in, until that is closed."""
    await wait_at_gate(which)
    return [item.value async for item in read_input_async("in") if not item.closed]


@workflow(inputs=["in"])
async def holding(which: str) -> None:
    """Takes nothing."""
    await wait_at_gate(which)


def written(url: str, key: str = "in") -> list[Any]:
    return [value for _, value in stored_values(url, "w", key)]


@pytest.fixture
def open_input(database_url: str, gate: Gate) -> Iterator[Engine]:
    """An engine whose workflow "w" takes an input until its end."""
    gates["in"] = gate
    with Engine(database_url) as engine:
        engine.start(taking.options(workflow_id="w"), "in")
        yield engine
        gate.open()
        engine.close_stream("w", "in")
        assert engine.handle("w").result(PATIENCE) == written(database_url)
    assert disorder(database_url) == []


def test_a_value_for_an_input_is_measured_as_json_in_utf_8(database_url: str, open_input: Engine) -> None:
    """By the engine that writes it, before it is sent; each engine has its own limit."""
    with Engine(database_url, executes=False, value_bytes=10) as client:
        assert client.write_stream("w", "in", "é" * 4) == 0
        for idempotency_key in (None, "key"):
            with pytest.raises(StreamValueTooLargeError, match="12 bytes is too large for stream 'in'"):
                client.write_stream("w", "in", "é" * 5, idempotency_key=idempotency_key)
    assert open_input.write_stream("w", "in", "é" * 5) == 1
    assert rows(database_url, "SELECT bytes = octet_length(values::text) FROM dbosflow.stream_block") == [(True,)] * 2


LIMITS: list[Any] = [{"stream_values": 4}, {"stream_bytes": 4 * 11 - 1}]
"""Four values of ten bytes; behind each is a comma, or the bracket."""


async def write_at_once(engine: Engine, values: list[Any]) -> list[Any]:
    """What came of each: its offset, or the error's class."""
    writing = [engine.write_stream_async("w", "in", value) for value in values]
    found = await asyncio.gather(*writing, return_exceptions=True)
    return [type(one) if isinstance(one, BaseException) else one for one in found]


@pytest.mark.parametrize("limit", LIMITS, ids=str)
@pytest.mark.parametrize("how", ["one by one", "at once"])
def test_an_input_that_has_had_enough_is_full(database_url: str, open_input: Engine, limit: Any, how: str) -> None:
    """Of what is written at once, what fits is written; what was written stays, and its name still answers."""
    values = [f"é{number:06}" for number in range(7)]
    with Engine(database_url, executes=False, **limit) as client:
        assert client.write_stream("w", "in", values[0], idempotency_key="first") == 0
        if how == "at once":
            found = asyncio.run(write_at_once(client, values[1:]))
        else:
            found = [asyncio.run(write_at_once(client, [value]))[0] for value in values[1:]]
        assert found == [1, 2, 3, StreamFullError, StreamFullError, StreamFullError]
        assert client.write_stream("w", "in", values[0], idempotency_key="first") == 0
        with pytest.raises(StreamFullError, match="stream 'in' of workflow 'w' is full"):
            client.write_stream("w", "in", values[0], idempotency_key="another")
    assert written(database_url) == values[:4]
    assert open_input.write_stream("w", "in", "of an engine without a limit") == 4


def test_a_small_value_fits_where_a_large_one_does_not(database_url: str, open_input: Engine) -> None:
    """Written at once, each is judged behind those that fit."""
    with Engine(database_url, executes=False, stream_bytes=30) as client:
        values = ["a" * 8, "b" * 20, "c" * 8, "d" * 8, "e" * 4, "f"]
        found = asyncio.run(write_at_once(client, values))
        assert found == [0, StreamFullError, 1, StreamFullError, 2, StreamFullError]
    assert written(database_url) == ["a" * 8, "c" * 8, "e" * 4]
    assert open_input.streams.info("w", "in").values == 3


@pytest.mark.parametrize("limit", LIMITS, ids=str)
def test_several_clients_fill_an_input_together(database_url: str, gate: Gate, limit: Any) -> None:
    """Also where each has seen less than there is: what others wrote meanwhile, and what is trimmed, counts."""
    gates["in"] = gate
    with (
        Engine(database_url) as engine,
        Engine(database_url, executes=False, **limit) as one,
        Engine(database_url, executes=False, **limit) as other,
    ):
        engine.start(holding.options(workflow_id="w"), "in")
        for number in range(3):
            assert (one, other)[number % 2].write_stream("w", "in", f"{number:08}") == number
        eventually(lambda: engine.streams.trim("w", "in", before=2) == 2, timeout=PATIENCE)
        assert one.write_stream("w", "in", "00000003") == 3
        for client in (one, other):
            with pytest.raises(StreamFullError):
                client.write_stream("w", "in", "00000004")
        gate.open()


def test_a_full_input_can_be_closed(database_url: str, open_input: Engine) -> None:
    """An end is no value."""
    with Engine(database_url, executes=False, stream_values=2) as client:
        for number in range(2):
            client.write_stream("w", "in", number)

        async def main() -> list[Any]:
            writing = asyncio.gather(*(client.write_stream_async("w", "in", n) for n in "abc"), return_exceptions=True)
            await asyncio.sleep(0)
            await client.close_stream_async("w", "in")
            return [type(one) for one in await writing]

        assert asyncio.run(main()) == [StreamFullError] * 3
    assert open_input.streams.info("w", "in").state == "complete"


@workflow(inputs=["in"])
async def failing_items() -> str:
    """Gives each item up."""
    try:
        await for_each_async("in", torn, on_error="dead_letter")
    except StreamFullError as error:
        return str(error)
    return "written"


@step
async def torn(_: int) -> None:
    raise ValueError


def test_a_full_stream_for_dead_letters_ends_its_loop(database_url: str) -> None:
    """No item is lost without a word."""
    with Engine(database_url, stream_values=2) as engine:
        handle = engine.start(failing_items.options(workflow_id="w"))
        for number in range(2):
            engine.write_stream("w", "in", number)
        eventually(lambda: len(written(database_url, "torn.dead")) == 2, timeout=PATIENCE)
        with Engine(database_url, executes=False) as client:
            client.write_stream("w", "in", 2)
        assert "'torn.dead' of workflow 'w' is full" in handle.result(PATIENCE)
        assert len(written(database_url, "torn.dead")) == 2
