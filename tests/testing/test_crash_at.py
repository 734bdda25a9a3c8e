"""``crash_at`` ends an owner at one place, and nothing else."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from dbosflow import Engine, step, workflow, write_stream_async
from dbosflow.errors import ConfigurationError, EngineClosedError, WorkflowBlockedError
from dbosflow.testing import END, START, crash_at

PATIENCE = 60.0
ran: list[str] = []
cleaned: list[str] = []
held = threading.Event()


@step
async def crashing_step(name: str) -> str:
    """Says that it ran."""
    ran.append(name)
    return name


@workflow
async def crashed_once(names: list[str]) -> list[str]:
    """Steps, and stream values between them."""
    found = []
    try:
        for name in names:
            found.append(await crashing_step(name))
            await write_stream_async("out", name)
    finally:
        cleaned.append(await crashing_step("clean-up"))
    return found


@pytest.fixture(autouse=True)
def _forget() -> None:
    ran.clear()
    cleaned.clear()


@pytest.mark.parametrize(
    ("key", "when", "expected"),
    [
        (START, "before", ["a", "b", "clean-up"]),
        (START, "after", ["a", "b", "clean-up"]),
        ("crashing_step#0", "before", ["a", "a", "b", "clean-up"]),
        ("crashing_step#0", "after", ["a", "b", "clean-up"]),
        ("crashing_step#1", "before", ["a", "b", "b", "clean-up"]),
        ("crashing_step#1", "after", ["a", "b", "clean-up"]),
        (END, "before", ["a", "b", "clean-up"]),
        (END, "after", ["a", "b", "clean-up"]),
    ],
)
def test_a_step_runs_again_unless_its_record_was_committed(
    engine: Engine, key: str, when: Any, expected: list[str]
) -> None:
    """And no clean-up of the dead owner's does anything durable."""
    with crash_at(engine, "w", key, when=when) as crash:
        assert engine.start(crashed_once.options(workflow_id="w"), ["a", "b"]).result(PATIENCE) == ["a", "b"]
        assert crash.happened
    assert ran == expected
    assert cleaned in (["clean-up"], ["clean-up"] * 2)
    assert engine.read_stream("w", "out").read_all() == (["a", "b"], True)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_stream_value_is_a_place_too(engine: Engine, when: Any) -> None:
    """By its producer and its number, however values are packed."""
    with crash_at(engine, "w", "out", producer="", number=1, when=when):
        assert engine.run(crashed_once.options(workflow_id="w"), ["a", "b", "c"]) == ["a", "b", "c"]
    assert engine.read_stream("w", "out").read_all() == (["a", "b", "c"], True)
    assert engine.handle("w").info().epoch > 1


def test_each_crash_of_several_comes_once(engine: Engine) -> None:
    """A crash in the replay of a crash."""
    with (
        crash_at(engine, "w", "crashing_step#0", when="after") as first,
        crash_at(engine, "w", "crashing_step#1", when="before") as second,
    ):
        engine.run(crashed_once.options(workflow_id="w"), ["a", "b"])
    assert first.happened
    assert second.happened
    assert ran == ["a", "b", "b", "clean-up"]


def test_no_crash_is_an_error(engine: Engine) -> None:
    """Unless the block has another one to report."""
    with (
        pytest.raises(AssertionError, match=r"there was no crash: record 'no#0' of workflow 'w' has not"),
        crash_at(engine, "w", "no#0"),
    ):
        engine.run(crashed_once.options(workflow_id="w"), ["a"])
    with pytest.raises(ZeroDivisionError), crash_at(engine, "w", "no#0"):
        raise ZeroDivisionError


def test_what_makes_no_sense_is_refused(engine: Engine, database_url: str) -> None:
    """Before anything runs."""
    wrong: Any = "during"
    with pytest.raises(ConfigurationError, match="when='during'"), crash_at(engine, "w", "a#0", when=wrong):
        pass
    with (
        Engine(database_url, executes=False) as client,
        pytest.raises(EngineClosedError, match="runs nothing"),
        crash_at(client, "w", "a#0"),
    ):
        pass


async def test_other_workflows_of_the_engine_are_taken_over_with_it(database_url: str) -> None:
    """They have the same owner."""
    began, go_on = asyncio.Event(), asyncio.Event()

    @workflow(name="crashed_bystander")
    async def bystander() -> str:
        ran.append("bystander")
        began.set()
        await go_on.wait()
        return await crashing_step("after all")

    async with Engine(database_url) as own:
        handle = await own.start_async(bystander)
        await began.wait()
        with crash_at(own, "w", "crashing_step#0"):
            await own.run_async(crashed_once.options(workflow_id="w"), ["a"])
        assert (await handle.info_async()).recoveries == 0  # its owner is not taken for one that died with it
        go_on.set()
        assert await handle.result_async(PATIENCE) == "after all"
    assert ran.count("bystander") == 2
    assert ran.count("after all") == 1


def test_a_thread_in_the_middle_of_a_step_leaves_no_record(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be ended; its outcome is nobody's."""
    monkeypatch.setattr("dbosflow.testing.rig._LAST_MOMENTS", 0.1)
    outcomes = iter(["of the dead owner", "of the living one"])
    held.clear()

    @step
    def stuck() -> str:
        outcome = next(outcomes)
        if outcome == "of the dead owner":
            held.wait()
        return outcome

    @workflow(name="crashed_on_thread")
    def on_thread() -> str:
        return stuck()

    with crash_at(engine, "w", "crashing_step#0"):
        handle = engine.start(on_thread)
        engine.run(crashed_once.options(workflow_id="w"), ["a"])
    assert handle.result(PATIENCE) == "of the living one"
    held.set()


def test_code_that_contradicts_its_records_is_parked(engine: Engine) -> None:
    """As it would be after a real crash."""
    passes: list[int] = []

    @workflow(name="crashed_and_changed")
    async def changes() -> None:
        passes.append(1)
        if len(passes) == 1:
            await crashing_step("a")
        else:
            await crashing_child("a")

    with (
        crash_at(engine, "w", "crashing_step#0", when="after"),
        pytest.raises(
            WorkflowBlockedError, match="asks for a child at key 'crashing_step#0', where its records hold a step"
        ),
    ):
        engine.run(changes.options(workflow_id="w"))


@workflow(name="crashing_step")
async def crashing_child(name: str) -> str:
    """A workflow by a step's name."""
    return name
