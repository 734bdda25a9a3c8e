"""What a stream, a value and a buffer may hold: a write above it is refused before anything of it is written."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, step, workflow, write_stream, write_stream_async
from dbosflow.errors import (
    ConfigurationError,
    StreamBackPressureError,
    StreamError,
    StreamFullError,
    StreamValueTooLargeError,
)
from tests.behaviour.tables import disorder
from tests.behaviour.test_back_pressure import stuck
from tests.support import eventually

if TYPE_CHECKING:
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


def test_a_step_fails_with_the_limit(database_url: str) -> None:
    """What its attempt wrote before is taken back."""
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
    for number in range(100):
        try:
            await write_stream_async("k", LARGE)
        except StreamBackPressureError:
            refused.set()
            return f"stopped at {number}"
    return "done"


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
    """After the timeout it is told what to do; the refused value is not written, and the workflow goes on."""
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
def test_a_limit_that_nothing_could_meet_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Engine("postgresql://localhost/none", **wrong)
