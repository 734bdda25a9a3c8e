"""A replay that writes other stream values than are on record is reported with both values; they stay as they are."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import pytest

from dbosflow import (
    Engine,
    Stream,
    close_stream_async,
    step,
    workflow,
    write_stream,
    write_stream_async,
)
from dbosflow.errors import ConfigurationError, StreamError, WorkflowBlockedError
from tests.behaviour.interruption import Interruption
from tests.behaviour.tables import disorder, records, rows, stored_values
from tests.support import eventually

PATIENCE = 60.0
stream = Stream[Any, None]("k")
Mode = Literal["warn", "block"]


@step
async def note() -> None:
    """Makes durable what was written, in a run with branches, too."""


def flow_of(begun: Interruption, before: list[Any], after: list[Any], *, sync: bool = False) -> Any:
    """A workflow that writes the first values, and in its second pass the others; then an end."""

    async def on_loop() -> str:
        for number, value in enumerate(after if begun.over else before):
            await write_stream_async("k", value)
            if number % 3 == 2:
                await stream.writer().flush_async()
        await stream.writer().flush_async()
        await begun.point_async()
        await write_stream_async("k", "end")
        return "done"

    def on_thread() -> str:
        for value in after if begun.over else before:
            write_stream("k", value)
        stream.writer().flush()
        begun.point()
        write_stream("k", "end")
        return "done"

    body = on_thread if sync else on_loop
    body.__qualname__ = f"changing_values_{sync}"
    return workflow(body)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "dbosflow.replay"]


def changes(url: str) -> list[dict[str, Any]]:
    return [output for (output,) in rows(url, "SELECT output FROM dbosflow.step WHERE kind = 'changed'")]


def second_pass(url: str, workflow_id: str, flow: Any, mode: Mode = "warn") -> str:
    """How it ends: its result, or why it is blocked."""
    with Engine(url, on_changed_values=mode) as engine:
        try:
            return str(engine.handle(workflow_id, flow).result(timeout=PATIENCE))
        except WorkflowBlockedError as error:
            return str(error)


CHANGES: dict[str, tuple[list[Any], list[Any], str, str]] = {
    "another value": (["a", "b", "c"], ["a", "x", "c"], '"x" as value 1', '"b"'),
    "the last one": (["a", "b", "c"], ["a", "b", "x"], '"x" as value 2', '"c"'),
    "a new first one": (["a", "b", "c"], ["x", "a", "b", "c"], '"x" as value 0', '"a"'),
    "one removed": (["a", "b", "c", "d"], ["a", "c", "d", "e"], '"c" as value 1', '"b"'),
    "fewer": (["a", "b", "end", "d"], ["a", "b"], "no more than 3 values", 'another one behind them, "d"'),
    "none": (["a", "b"], [], '"end" as value 0', '"a"'),
    "another type": ([1, 2, 3], [1, "2", 3], '"2" as value 1', "hold 2"),
    "texts that are as one": (["a,b", "c"], ["a", "b,c"], '"a" as value 0', '"a,b"'),
    "in another block": (list(range(9)), [*range(7), "x", 8], '"x" as value 7', "hold 7"),
}


@pytest.mark.parametrize("mode", ["warn", "block"])
@pytest.mark.parametrize("which", CHANGES)
def test_the_first_value_that_a_replay_writes_differently_is_reported(
    database_url: str, which: str, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    """As a warning and on record, and the workflow goes on; or, by a setting, it is blocked there."""
    before, after, written, recorded = CHANGES[which]
    begun = Interruption()
    flow = flow_of(begun, before, after)
    workflow_id = begun.first_pass(database_url, flow)
    kept = records(database_url, workflow_id)
    result = second_pass(database_url, workflow_id, flow, mode)
    stored = [value for _, value in stored_values(database_url, workflow_id, "k")]
    if mode == "block":
        assert written in result
        assert recorded in result
        assert stored == before
        assert records(database_url, workflow_id) == kept
        return
    assert result == "done"
    assert stored[: len(before)] == before
    (warning,) = warnings(caplog)
    assert written in warning
    assert recorded in warning
    ((key, output),) = rows(database_url, "SELECT key, output FROM dbosflow.step WHERE kind = 'changed'")
    assert key == "/write_stream('k')/changed"
    assert output["recorded"] == json.dumps(before[output["place"]])
    assert disorder(database_url) == []


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize("mode", ["warn", "block"])
def test_repeated_values_are_compared_in_sync_and_async_workflows(database_url: str, sync: bool, mode: Mode) -> None:  # noqa: FBT001
    begun = Interruption()
    flow = flow_of(begun, ["a", "b"], ["a", "x"], sync=sync)
    workflow_id = begun.first_pass(database_url, flow)
    result = second_pass(database_url, workflow_id, flow, mode)
    assert (result == "done") == (mode == "warn")
    assert '"x" as value 1' in result or mode == "warn"


@pytest.mark.parametrize("sync", [True, False])
def test_a_replay_that_writes_the_same_values_reports_nothing(
    database_url: str,
    sync: bool,  # noqa: FBT001
    caplog: pytest.LogCaptureFixture,
) -> None:
    """However they are packed, in the first pass and in the second."""
    values = [1, "é\0\ud800", None, {"a": [1.5, "x" * 1000]}, *range(100)]
    begun = Interruption()
    flow = flow_of(begun, values, values, sync=sync)
    workflow_id = begun.first_pass(database_url, flow, block_values=3)
    assert second_pass(database_url, workflow_id, flow, "block") == "done"
    assert warnings(caplog) == []


def test_a_checksum_goes_on_over_passes_and_branches(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Each branch has its own on each stream, over all owners; what one writes otherwise is reported of it alone."""
    begun = Interruption()

    async def teller(name: str) -> None:
        for number in range(20):
            changed = begun.over and name == "two" and number == 13
            await write_stream_async("k", f"{name} {number}{'!' if changed else ''}")
            await write_stream_async(name, number)
            if number % 5 == 0:
                await note()

    async def body() -> str:
        await asyncio.gather(teller("one"), teller("two"))
        await begun.point_async()
        return "done"

    teller.__qualname__, body.__qualname__ = "teller", "telling_values"
    flow = workflow(body)
    workflow_id = begun.first_pass(database_url, flow, block_values=4)
    assert second_pass(database_url, workflow_id, flow) == "done"
    (warning,) = warnings(caplog)
    assert """writes "two 13!" as value 13 of stream 'k' (by branch 'teller#1')""" in warning
    assert 'records hold "two 13"' in warning


resumed = Stream[str, None]("lines")


@step(max_attempts=3, interval=0)
async def copying(begun: Interruption) -> None:
    writer = resumed.writer(on_retry="resume")
    done = len(await writer.emitted_async())
    for number in range(done, 6):
        await writer.write_async(f"{number}{'!' if begun.over else ''}")
        if number == 3 and not begun.over:
            await writer.flush_async()
            await begun.point_async()
    await close_stream_async("other")


def test_values_of_another_attempt_of_a_step_are_not_compared(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A step may write something else each time; also where attempts go on behind each other."""
    begun = Interruption()

    async def body() -> str:
        await copying(begun)
        return "done"

    body.__qualname__ = "copying_values"
    flow = workflow(body)
    workflow_id = begun.first_pass(database_url, flow)
    assert second_pass(database_url, workflow_id, flow, "block") == "done"
    values = [value for _, value in stored_values(database_url, workflow_id, "lines")]
    assert values == ["0", "1", "2", "3", "4!", "5!"]
    assert warnings(caplog) == []


def test_values_without_a_checksum_from_older_code_are_not_compared(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """They have no checksum; and none is begun in the middle."""
    begun = Interruption()
    flow = flow_of(begun, ["a", "b"], ["a", "x", "y"])
    workflow_id = begun.first_pass(database_url, flow)
    rows(database_url, "UPDATE dbosflow.stream_block SET checksum = NULL RETURNING 1")
    assert second_pass(database_url, workflow_id, flow, "block") == "done"
    assert warnings(caplog) == []
    assert rows(database_url, "SELECT DISTINCT checksum FROM dbosflow.stream_block") == [(None,)]


@pytest.mark.parametrize(("changed", "text"), [("b", "others, which are trimmed"), ("i", '"i!" as value 8')])
def test_changed_values_that_were_trimmed_are_only_said_to_differ(
    database_url: str, changed: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And of those that are left, which."""
    begun = Interruption()
    values = list("abcdefghij")
    flow = flow_of(begun, values, [value.replace(changed, f"{changed}!") for value in values])
    workflow_id = begun.first_pass(database_url, flow)
    with Engine(database_url, executes=False) as client:
        assert client.streams.trim(workflow_id, "k", before=4) == 3
    assert second_pass(database_url, workflow_id, flow) == "done"
    (warning,) = warnings(caplog)
    assert text in warning


def test_changed_values_are_noticed_although_all_of_them_were_trimmed(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Another producer has the newest block, so nothing is left of the first one's."""
    begun = Interruption()

    async def other() -> None:
        await write_stream_async("k", "newest")
        await note()

    async def body() -> str:
        for value in ["a", "x" if begun.over else "b"]:
            await write_stream_async("k", value)
        await note()
        await asyncio.gather(other())
        await begun.point_async()
        return "done"

    body.__qualname__ = "trimming_values"
    flow = workflow(body)
    workflow_id = begun.first_pass(database_url, flow)
    with Engine(database_url, executes=False) as client:
        assert client.streams.trim(workflow_id, "k", before=9) == 2
    assert second_pass(database_url, workflow_id, flow) == "done"
    (warning,) = warnings(caplog)
    assert "others, which are trimmed" in warning


def test_a_changed_value_is_on_record_once(database_url: str) -> None:
    """However often the workflow is recovered: a record shows that a workflow gets further."""
    begun = Interruption()

    async def body() -> str:
        await write_stream_async("k", f"pass {len(seen)}")
        seen.append(1)
        await note()
        await begun.point_async()
        return "done"

    seen: list[int] = []
    body.__qualname__ = "another_value_each_time"
    flow = workflow(body)
    workflow_id = begun.first_pass(database_url, flow)
    second = Interruption()
    begun.point_async = second.point_async  # type: ignore[method-assign]
    with Engine(database_url, grace=0):
        assert second.reached()
        assert eventually(lambda: changes(database_url) != [])
    second.let_through()
    assert second_pass(database_url, workflow_id, flow) == "done"
    assert [row["written"] for row in changes(database_url)] == ['"pass 1"']


def test_long_changed_values_are_reported_in_part(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    begun = Interruption()
    flow = flow_of(begun, ["a" * 100_000], ["b" * 100_000])
    workflow_id = begun.first_pass(database_url, flow)
    assert second_pass(database_url, workflow_id, flow) == "done"
    (warning,) = warnings(caplog)
    assert len(warning) < 1000
    assert "more characters" in warning


def test_a_write_that_was_refused_is_refused_again_before_those_behind_it(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What is durable at its count was written after it."""
    begun = Interruption()

    async def body() -> list[str]:
        refused = []
        for value in ["a", "large" * 10, "b", "large" * 10, "large" * 10, "c"]:
            try:
                await write_stream_async("k", value)
            except StreamError:
                refused.append(value)
        await note()
        await begun.point_async()
        return refused

    body.__qualname__ = "refused_in_the_middle"
    flow = workflow(body)
    workflow_id = begun.first_pass(database_url, flow, value_bytes=10)
    assert second_pass(database_url, workflow_id, flow, "block") == str(["large" * 10] * 3)
    assert [value for _, value in stored_values(database_url, workflow_id, "k")] == ["a", "b", "c"]
    assert warnings(caplog) == []


def test_the_setting_for_changed_values_is_checked() -> None:
    with pytest.raises(ConfigurationError, match="on_changed_values"):
        Engine("postgresql://localhost/none", on_changed_values="ignore")


def test_reporting_a_changed_value_holds_no_flush_up(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """The record of it waits for the end of the replay; a flush that has left no record waits for nothing."""
    begun = Interruption()

    @workflow
    async def flushing_twice() -> str:
        if begun.over:
            await asyncio.create_task(asyncio.sleep(0))  # a library's, say: with it the run has turns
        await write_stream_async("k", begun.over)
        while begun.over and not warnings(caplog):  # noqa: ASYNC110 (the log sets no event)
            await asyncio.sleep(0.01)
        await stream.writer().flush_async()
        await note()
        await begun.point_async()
        return "done"

    workflow_id = begun.first_pass(database_url, flushing_twice)
    assert second_pass(database_url, workflow_id, flushing_twice) == "done"
    assert [change["place"] for change in changes(database_url)] == [0]


def test_a_blocked_workflow_says_that_steps_ran_before_a_changed_value_was_found(database_url: str) -> None:
    """The branch has something new to do before its last value that is there: only that one shows it."""
    begun = Interruption()

    @workflow
    async def doing_more_before() -> str:
        if begun.over:
            await note()
        await write_stream_async("k", begun.over)
        await stream.writer().flush_async()
        await begun.point_async()
        return "done"

    workflow_id = begun.first_pass(database_url, doing_more_before)
    message = second_pass(database_url, workflow_id, doing_more_before, "block")
    assert "writes true as value 0 of stream 'k', where its records hold false" in message
    assert "Steps may have run since, and are on record" in message
    assert "Nothing new has run" not in message
    assert records(database_url, workflow_id) == [("note#0", "step")]
