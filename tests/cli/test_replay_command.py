"""``dbosflow replay``: changed code against recorded histories."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.shell import Shell

PROGRAM = """
import asyncio
import time
from dbosflow import *
from dbosflow.errors import WorkflowBlockedError, WorkflowTimeoutError

ran = []


@step
async def charge(amount: int) -> int:
    RAN
    return amount


@step
def ship(what: str) -> str:
    RAN
    return what.upper()


@workflow
async def unchanged(amount: int) -> list[int]:
    await write_stream_async("out", "begun")
    await sleep_async(0)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(charge(n)) for n in range(3)]
    await asyncio.gather(*(part(n) for n in range(2)))
    try:
        async with asyncio.timeout(0.05):
            await stuck()
    except TimeoutError:
        pass
    await write_stream_async("out", "done")
    await close_stream_async("out")
    return [task.result() for task in tasks]


@workflow
async def closes() -> int:
    await write_stream_async("out", 1)
    await close_stream_async("out")
    return await charge(1)


@workflow(timeout=0.05)
def late() -> str:
    time.sleep(0.1)
    return "too late"


@workflow
async def part(number: int) -> int:
    return await charge(number)


@step
async def stuck() -> None:
    RAN
    await asyncio.Event().wait()


@workflow
def on_thread(what: str) -> str:
    write_stream("out", 1)
    sleep(0)
    first = ship(what)
    part.run(1)
    write_stream("out", first)
    return first


@workflow
def fails(what: str) -> None:
    raise KeyError(ship(what))


@workflow
async def other_kind() -> str:
    return await (OTHER_KIND)


@workflow(name="ship")
async def ship_by_child(what: str) -> str:
    return what


@workflow
async def more_steps() -> int:
    found = await charge(1)
    MORE_STEPS
    return found


@workflow
async def fewer_steps() -> int:
    await charge(1)
    FEWER_STEPS
    return 1


@workflow
def swapped() -> int:
    SWAPPED
    return 1


@workflow
async def other_result() -> int:
    return await charge(1) OTHER_RESULT


@workflow
async def other_error() -> None:
    raise ValueError("OTHER_ERROR")


@workflow
async def other_values() -> None:
    for value in [OTHER_VALUES]:
        await write_stream_async("out", value)
    await charge(1)


@workflow
async def more_values() -> None:
    for value in [MORE_VALUES]:
        await write_stream_async("out", value)
    await charge(1)


@workflow
async def fewer_values() -> None:
    for value in [FEWER_VALUES]:
        await write_stream_async("out", value)
    await charge(1)


@workflow
async def hangs() -> None:
    HANGS


@workflow
async def waits() -> None:
    await charge(1)
    await write_stream_async("out", WAITS)
    await sleep_async(100000)
    await charge(2)


def go():
    import logging
    with Engine() as engine:
        handles = [
            engine.start(flow.options(workflow_id=flow.definition.name), *args)
            for flow, args in (
                (unchanged, (1,)), (on_thread, ("book",)), (fails, ("book",)), (other_kind, ()), (more_steps, ()),
                (fewer_steps, ()), (swapped, ()), (other_result, ()), (other_error, ()), (other_values, ()),
                (more_values, ()), (fewer_values, ()), (hangs, ()), (closes, ()), (late, ()),
            )
        ]
        waiting = engine.start(waits.options(workflow_id="waits"))
        for handle in handles:
            try:
                handle.result(30)
            except (KeyError, ValueError, WorkflowTimeoutError):
                pass
        while not [one for one in engine.list_steps("waits") if one.kind == "sleep"]:
            pass


"""
BEFORE = {
    "RAN": "pass",
    "OTHER_KIND": "ship.run_async('x')",
    "MORE_STEPS": "pass",
    "FEWER_STEPS": "await charge(2)",
    "SWAPPED": "ship('x'); part.run(1)",
    "OTHER_RESULT": "",
    "OTHER_ERROR": "one",
    "OTHER_VALUES": "1, 2, 3",
    "MORE_VALUES": "1",
    "FEWER_VALUES": "1, 2, 3",
    "HANGS": "await charge(1)",
    "WAITS": "1",
}
AFTER = {
    "RAN": "print('a step ran')",
    "OTHER_KIND": "ship_by_child.run_async('x')",
    "MORE_STEPS": "await charge(3)",
    "FEWER_STEPS": "pass",
    "SWAPPED": "part.run(1); ship('x')",
    "OTHER_RESULT": "+ 41",
    "OTHER_ERROR": "two",
    "OTHER_VALUES": "1, 20, 3",
    "MORE_VALUES": "1, 2, 3",
    "FEWER_VALUES": "1",
    "HANGS": "await asyncio.Event().wait()",
    "WAITS": "1",
}
DIFFERENCES = {
    "unchanged": None,
    "on_thread": None,
    "fails": None,
    "swapped": "its code asks for 'part#0', where its records hold 'ship#0' next",
    "waits": None,
    "closes": None,
    "late": None,
    "other_kind": "its code asks for a child at key 'ship#0', where its records hold a step",
    "more_steps": "the code asks for 'charge#1', which is not on record",
    "fewer_steps": "its code has ended, where its records hold 'charge#1' behind that",
    "other_result": "its result is 1 on record, and 42 with this code",
    "other_error": "it has failed with ValueError: one, and with this code it would fail with ValueError: two",
    "other_values": "value 1 of stream 'out' is 2 on record, and the code writes 20",
    "more_values": "writes another value to stream 'out', where its records hold 'charge#0'",
    "fewer_values": "the code writes 2 values less to stream 'out' than are on record",
    "hangs": "the code has not come to its end within 1 s",
}


def write(shell: Shell, **words: str) -> None:
    """The program, with these words in it."""
    text = PROGRAM
    for name, value in words.items():
        text = text.replace(name, value)
    shell.write("app.py", text)


@pytest.fixture
def recorded(shell: Shell, database_url: str, execute: Callable[..., Any]) -> Callable[[], list[Any]]:
    """A database in which the program has run; gives all there is in it."""
    write(shell, **BEFORE)
    done = shell.python("-c", "import app; app.go()").end()
    assert done.status == 0, done.err
    tables = ("workflow", "step", "stream_block", "stream_trim")
    return lambda: [execute(f"SELECT t::text FROM dbosflow.{table} t ORDER BY 1") for table in tables]


def test_unchanged_code_agrees_with_all_that_is_on_record(shell: Shell, recorded: Callable[[], list[Any]]) -> None:
    """Finished, failed, waiting; on the loop and on threads; with branches, children, streams and cancelled steps."""
    done = shell.run("replay", "app")
    assert done.status == 0, done.out + done.err
    lines = done.out.splitlines()
    assert lines[-1] == f"{len(DIFFERENCES) + 4} replayed, 0 different"  # and the children, by the same module
    assert all(line.startswith("same  ") for line in lines[:-1])


def test_each_change_is_named_and_nothing_runs_or_is_written(shell: Shell, recorded: Callable[[], list[Any]]) -> None:
    """With status 1, and as JSON."""
    before = recorded()
    write(shell, **AFTER)
    done = shell.run("replay", "app", *DIFFERENCES, "--timeout", "1", "--json")
    assert done.status == 1, done.err
    assert "a step ran" not in done.out
    found = {one["id"]: one["differences"] for one in json.loads(done.out)}
    assert done.err == ""
    assert list(found) == list(DIFFERENCES)
    for workflow_id, difference in DIFFERENCES.items():
        texts = found[workflow_id]
        assert len(texts) == (difference is not None), texts
        assert difference is None or difference in texts[0]
    assert recorded() == before


def test_what_is_replayed_can_be_chosen(shell: Shell, recorded: Callable[[], list[Any]]) -> None:
    """By status and by number, the newest first; an id that nobody has is a difference."""
    failed = json.loads(shell.run("replay", "app", "--status", "failed", "--json").out)
    assert {one["id"] for one in failed} == {"fails", "other_error", "late"}
    assert len(json.loads(shell.run("replay", "app", "--limit", "3", "--json").out)) == 3
    done = shell.run("replay", "app", "nobody")
    assert done.status == 1
    assert "  - there is no such workflow" in done.out
    shell.write("less.py", "from dbosflow import workflow\n\n@workflow\ndef another(): ...\n")
    assert "  - the code knows no workflow 'fails'" in shell.run("replay", "less", "fails").out
    done = shell.run("replay", "less")
    assert (done.out, done.err) == ("", "dbosflow: there are no such workflows\n")


def test_changed_code_of_a_running_workflow_is_checked_as_far_as_its_records_go(
    shell: Shell, recorded: Callable[[], list[Any]]
) -> None:
    """What comes after them is free; what is on record is not."""
    write(shell, **{**BEFORE, "WAITS": "2"})
    done = shell.run("replay", "app", "waits")
    assert done.status == 1
    assert "  - value 0 of stream 'out' is 1 on record, and the code writes 2" in done.out
    write(shell, **{**BEFORE, "WAITS": "1)\n    await charge(5"})
    done = shell.run("replay", "app", "waits")
    assert done.status == 1
    assert "asks for 'charge#1', which is not on record, where its records hold 'sleep#0' next" in done.out
