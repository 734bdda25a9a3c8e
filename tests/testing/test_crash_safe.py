"""``assert_crash_safe`` lets crash-safe workflows pass, and names what is wrong with others, where, and when."""

from __future__ import annotations

import asyncio
import io
import itertools
import logging
import random
import re
import sys
import time
from typing import Any

import pytest

from dbosflow import Engine, branch, current, run_step_async, sleep, sleep_async, step, workflow, write_stream_async
from dbosflow.testing import CrashReport, MovableClock, assert_crash_safe, assert_crash_safe_async
from dbosflow.testing.sweep import _Sweep
from tests.support import eventually
from tests.testing import safe_programs as safe

counter = itertools.count()
seen: list[int] = []
attempts: dict[str, int] = {}


# -- what is crash-safe ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "args", "points"),
    [
        (safe.kit_steps, (1,), 7),
        (safe.kit_on_thread, (1,), 11),
        (safe.kit_branches, (3,), 13),
        (safe.kit_children, (1,), 33),
        (safe.kit_streams, (), 9),
        (safe.kit_resuming, (), 5),
        (safe.kit_loop, (2,), 15),
        (safe.kit_sleeps, (), 11),
        (safe.kit_is_cancelled, (), 7),
        (safe.kit_cancels, (), 9),
        (safe.kit_draws, (), 15),
        (safe.kit_fan_out, (), 40),
    ],
    ids=lambda one: getattr(getattr(one, "definition", None), "name", None),
)
def test_a_crash_safe_workflow_passes(target: Any, args: tuple[Any, ...], points: int) -> None:
    """Each of its durable operations is a place to crash, on both sides of the commit."""
    report = assert_crash_safe(target, *args)
    assert report.points >= points, report
    assert report.points + len(report.missed) == 2 * len(report.operations) - 1
    assert report.not_compared == ()


def test_the_report_names_every_durable_operation() -> None:
    """Also those of children, and blocks of streams."""
    report = assert_crash_safe(safe.kit_child, 1)
    assert report == CrashReport(
        operations=(
            "the start of workflow 'kit_child'",
            "value 0 of stream 'out' of workflow 'kit_child'",
            "record 'doubled#0' of workflow 'kit_child'",
            "the end of workflow 'kit_child'",
        ),
        points=7,
        outcome="gave 2",
        missed=(),
        not_compared=(),
    )


def test_a_workflow_that_fails_undisturbed_passes_only_where_that_is_expected() -> None:
    """It fails the same with each crash, which shows little of a workflow that was to succeed."""
    with pytest.raises(AssertionError, match=r"'kit_fails' failed with FlakyError: no 2.*expects=FlakyError") as caught:
        assert_crash_safe(safe.kit_fails, 1)
    assert isinstance(caught.value.__cause__, safe.FlakyError)
    for expected in (safe.FlakyError, (KeyError, Exception)):
        report = assert_crash_safe(safe.kit_fails, 1, expects=expected)
        assert (report.points, report.outcome) == (7, "failed with FlakyError: no 2")
    with pytest.raises(AssertionError, match=r"was to fail with KeyError; .*it failed with FlakyError"):
        assert_crash_safe(safe.kit_fails, 1, expects=KeyError)
    with pytest.raises(AssertionError, match=r"'kit_child' was to fail with KeyError; .*it gave 2"):
        assert_crash_safe(safe.kit_child, 1, expects=KeyError)


@workflow
def sleeps_for_hours(seconds: int) -> str:
    sleep(seconds)
    return "rested"


def test_nobody_waits_for_a_sleep_on_any_engine(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one whose clock a test moves, one without, and its own; afterwards the clocks are what they were."""
    monkeypatch.setattr("dbosflow.testing.sweep.PATIENCE", 20.0)  # a sleep that is waited for ends the test soon
    clock = MovableClock()
    with Engine(database_url, grace=0.0) as engine:  # one at a time: what is crashed may go on in any
        clock.install(engine)
        assert assert_crash_safe(sleeps_for_hours, 86400, engine=engine).outcome == 'gave "rested"'
        assert not clock.skips
    with Engine(database_url, grace=0.0) as engine:
        assert_crash_safe(sleeps_for_hours, 86400, engine=engine)
        handle = engine.start(sleeps_for_hours, 86400)
        eventually(lambda: engine.list_steps(handle.workflow_id))
        assert handle.status() == "running"
        handle.cancel()
    assert_crash_safe(sleeps_for_hours, 86400)


def test_it_says_how_far_it_is(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the log, and on a terminal in one line, which is gone in the end."""
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", terminal)
    with caplog.at_level(logging.INFO, "dbosflow.testing"):
        assert_crash_safe(safe.kit_child, 1)
    said = [text for text in caplog.messages if "'kit_child'" in text and "crash" in text]
    assert said[0] == "workflow 'kit_child' gave 2; now with 7 crashes, one at a time"
    assert said[1].startswith("workflow 'kit_child', crash 1 of 7: a crash after the start")
    assert len(said) == 8
    shown = terminal.getvalue().split("\r\x1b[K")
    assert shown == ["", *[f"kit_child: crash {number} of 7" for number in range(1, 8)], ""]


def test_it_works_on_a_given_engine_and_leaves_its_other_workflows_alone(engine: Engine) -> None:
    """They are taken over with it, and go on; none of so many deaths is held against them."""
    other = engine.start(safe.kit_waits)
    assert assert_crash_safe(safe.kit_branches, 3, engine=engine).points > 10
    eventually(lambda: other.status() == "running")
    assert other.info().recoveries == 0
    other.cancel()


async def test_it_works_on_a_running_loop(database_url: str) -> None:
    """Under ``async with``, with an engine on another loop, and with one of its own."""
    async with Engine(database_url) as engine:
        assert (await assert_crash_safe_async(safe.kit_steps, 1, engine=engine)).points == 7
    assert (await assert_crash_safe_async(safe.kit_steps, number=1)).points == 7


def test_an_owner_that_ended_does_nothing_any_more(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """In each execution with a crash another epoch ends the workflow, unless the crash came after its end."""
    epochs = []
    execute = _Sweep._execute

    async def remember(self: Any, trap: Any) -> Any:
        transcript, ended = await execute(self, trap)
        (workflow_id,) = transcript._names
        epochs.append((trap and trap.sprung, (await engine.handle(workflow_id).info_async()).epoch))
        return transcript, ended

    monkeypatch.setattr(_Sweep, "_execute", remember)
    assert_crash_safe(safe.kit_steps, 1, engine=engine)
    assert [sprung for sprung, _ in epochs] == [None, None, *[True] * 7]
    assert [epoch for _, epoch in epochs[:2]] == [1, 1]
    assert all(epoch > 1 for _, epoch in epochs[2:-1])
    assert epochs[-1] == (True, 1)


# -- what is not -------------------------------------------------------------------------------------------------------


@step
async def kept(value: Any) -> Any:
    """Something durable."""
    return value


@step
async def noted_aside(number: int) -> int:
    """Leaves more behind than its outcome."""
    seen.append(number)
    return number


@step
async def paid(amount: float) -> str:
    """Its outcome says nothing of its argument."""
    return "paid"


@workflow
async def unsafe_chance() -> float:
    """A random number that is on no record."""
    chance = random.random()
    await kept(1)
    return chance


@workflow
async def unsafe_time() -> float:
    """The time of day."""
    await kept(1)
    return time.time()


@workflow
async def unsafe_order() -> list[int]:
    """The order of a set of tasks."""
    tasks = [asyncio.create_task(kept(number), name=str(number)) for number in range(20)]
    done, _ = await asyncio.wait(tasks)
    return [await kept(int(task.get_name())) for task in list(done)[:3]]


@workflow
async def unsafe_counter() -> int:
    """A module's global."""
    number = next(counter)
    await kept(1)
    return number


@workflow
async def unsafe_values() -> None:
    """A stream value that a replay would write otherwise."""
    await write_stream_async("out", "the same")
    await write_stream_async("out", random.random())
    await kept(1)


@workflow
async def unsafe_branch() -> None:
    """A value of a branch with a name like those of the producers that write to inputs."""
    with branch("k:aside"):
        await write_stream_async("out", random.random())
    await kept(1)


@workflow
async def unsafe_aside() -> int:
    """What a step did besides giving its outcome: a replay does not do it again, and a repetition does."""
    before = len(seen)
    await noted_aside(1)
    return len(seen) - before


@workflow
async def unsafe_argument() -> str:
    """A step that would be asked for something else when it is repeated."""
    return await paid(random.random())


@workflow
async def unsafe_fewer() -> int:
    """Fewer steps in a replay than it has on record."""
    name = current().workflow_id
    attempts[name] = attempts.get(name, 0) + 1
    for _ in range(4 - attempts[name]):
        await kept(1)
    return 1


@workflow
async def unsafe_kind() -> int:
    """An operation of another kind at the same key."""
    name = current().workflow_id
    attempts[name] = attempts.get(name, 0) + 1
    if attempts[name] == 1:
        await run_step_async("sleep", lambda: None)
    else:
        await sleep_async(0)
    return 1


CRASH = (
    r"With a crash (before the statement with|after) .* of workflow '{name}' "
    r"was (sent|committed, before the answer came):"
)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (unsafe_chance, r"- result of workflow 'unsafe_chance':\n    undisturbed: 0\.\d+\n    crashed:     0\.\d+"),
        (unsafe_time, r"- result of workflow 'unsafe_time':\n    undisturbed: 1\d+\.\d+\n    crashed:     1\d+\.\d+"),
        (unsafe_order, r"- (result of workflow|the arguments of step)"),
        (unsafe_counter, r"- result of workflow 'unsafe_counter':\n    undisturbed: \d+\n    crashed:     \d+"),
        (
            unsafe_values,
            r"- value 1 of stream 'out' of workflow 'unsafe_values':\n    undisturbed: 0\.\d+\n    crashed: ",
        ),
        (
            unsafe_branch,
            r"- value 0 of stream 'out' of workflow 'unsafe_branch', written by 'k:aside':\n    undisturbed: 0\.\d+\n",
        ),
        (unsafe_aside, r"- result of workflow 'unsafe_aside':\n    undisturbed: 1\n    crashed:     [02]"),
        (unsafe_argument, r"- the arguments of step 'paid#0' of workflow 'unsafe_argument':\n    undisturbed: 0\.\d+"),
        (unsafe_fewer, r"its code has ended, where its records hold 'kept#2' behind that"),
        (unsafe_kind, r"asks for a sleep at key 'sleep#0', where its records hold a step"),
    ],
    ids=lambda one: getattr(getattr(one, "definition", None), "name", ""),
)
def test_what_is_not_crash_safe_is_named_with_its_place_and_both_values(target: Any, says: str) -> None:
    """The operation, the kind of crash, and the difference."""
    with pytest.raises(AssertionError) as caught:
        assert_crash_safe(target)
    text = str(caught.value)
    name = target.definition.name
    assert text.startswith(f"workflow {name!r} is not crash-safe.\n")
    assert re.search(CRASH.format(name=name), text), text
    assert re.search(says, text), text


def test_a_value_that_a_replay_would_write_otherwise_is_compared_with_what_is_there(engine: Engine) -> None:
    """The stream keeps the recorded value, so neither the result nor the stream could tell."""
    first: dict[str, float] = {}

    @step
    async def settled(value: str) -> str:
        return value

    @workflow(name="unsafe_but_unseen")
    async def unseen() -> None:
        name = current().workflow_id
        await write_stream_async("out", 1 if first.setdefault(name, 0) == 0 else 2)
        await settled("a")
        first[name] += 1
        await settled("b")

    with pytest.raises(AssertionError) as caught:
        assert_crash_safe(unseen, engine=engine)
    assert "With a crash after record 'settled#0' of workflow 'unsafe_but_unseen' was" not in str(caught.value)
    assert "- value 0 of stream 'out' of workflow 'unsafe_but_unseen':\n    on record: 1\n    replayed:  2" in str(
        caught.value
    )
    assert "Two undisturbed runs differ" not in str(caught.value)


def test_a_body_that_differs_without_a_crash_is_told_from_one_that_does_not_survive_it() -> None:
    """Both are found; the advice is another."""
    with pytest.raises(AssertionError, match="Two undisturbed runs differ as well"):
        assert_crash_safe(unsafe_chance)


def test_a_stream_that_a_step_fills_with_chance_is_not_compared_and_the_report_says_so() -> None:
    """A model's tokens are other ones each time, and no fault of the workflow's."""

    @step
    async def generate() -> int:
        for _ in range(random.randrange(2, 5)):
            await write_stream_async("tokens", random.random())
        return 1

    @workflow(name="kit_generates")
    async def generates() -> int:
        return await generate()

    assert assert_crash_safe(generates).not_compared == ("'tokens' of workflow 'kit_generates'",)


def test_a_workflow_that_does_not_end_is_a_failure_that_names_the_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a test that hangs."""
    monkeypatch.setattr("dbosflow.testing.sweep.PATIENCE", 1.0)
    runs: dict[str, int] = {}

    @workflow(name="unsafe_hangs")
    async def hangs() -> None:
        name = current().workflow_id
        runs[name] = runs.get(name, 0) + 1
        if runs[name] > 1:
            await asyncio.get_running_loop().create_future()
        await kept(1)

    with pytest.raises(
        AssertionError, match=r"with a crash before the statement with record 'kept#0' of .*, has not ended within 1 s"
    ):
        assert_crash_safe(hangs)
