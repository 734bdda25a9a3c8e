"""Workflows that are continued as new: one id and one handle, a short history, and nothing lost or repeated between."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import (
    Engine,
    WorkflowStatus,
    close_stream_async,
    compensate,
    continue_as_new,
    for_each_async,
    read_input_async,
    recv,
    recv_async,
    sleep_async,
    step,
    timeout,
    workflow,
    write_stream,
    write_stream_async,
)
from dbosflow.errors import (
    ContinueAsNewError,
    InWorkflowError,
    NotInWorkflowError,
    SerializationError,
    StreamClosedError,
    WorkflowCancelledError,
    WorkflowEndedError,
    WorkflowForkError,
    WorkflowTimeoutError,
)
from dbosflow.testing import assert_crash_safe
from tests.behaviour import ledger
from tests.behaviour.expiring import expire
from tests.behaviour.tables import rows
from tests.support import eventually

if TYPE_CHECKING:
    from pathlib import Path

FOR_EVER = 100_000.0


@step
async def more(number: int) -> int:
    """One more."""
    ledger.note(["more", number])
    return number + 1


@step
def more_on_thread(number: int) -> int:
    """One more."""
    return number + 1


@step
async def told(number: int) -> int:
    """Writes from an attempt, which the record of its success commits."""
    await write_stream_async("told", number)
    return number


@workflow
async def counting_anew(number: int, until: int) -> str:
    """Counts, one number an iteration."""
    number = await more(number)
    await write_stream_async("counted", number)
    if number < until:
        continue_as_new(number, until=until)
    await close_stream_async("counted")
    return f"counted to {number}"


@workflow
def counting_on_thread_anew(number: int, until: int) -> str:
    """The same on a thread."""
    number = more_on_thread(number)
    write_stream("counted", number)
    if number < until:
        continue_as_new(number, until)
    return f"counted to {number}"


@pytest.mark.parametrize("spec", [counting_anew, counting_on_thread_anew], ids=["async", "sync"])
def test_the_handle_and_the_streams_are_those_of_one_workflow(engine: Engine, spec: Any) -> None:
    """Its offsets go on, its records say which iteration they are of, and its input is that of the last one."""
    handle = engine.start(spec, 0, 5)
    values, closed = engine.read_stream(handle.workflow_id, "counted").read_all()
    assert handle.result() == "counted to 5"
    assert (values, closed) == ([1, 2, 3, 4, 5], True)
    info = engine.workflows.get(handle.workflow_id)
    assert (info.status, info.iteration, info.input) == (WorkflowStatus.SUCCEEDED, 4, {"number": 4, "until": 5})
    (stream,) = engine.streams.list(handle.workflow_id)
    assert (stream.tail, stream.values) == (5 + 1, 5)
    steps = engine.list_steps(handle.workflow_id)
    assert [one.iteration for one in steps if one.kind == "step"] == [0, 1, 2, 3, 4]
    assert [one.key for one in steps if one.kind == "continued"] == ["~1", "~2", "~3", "~4"]
    assert [one.seq for one in steps] == [*range(9)]


@pytest.mark.usefixtures("server_of_the_kit")
@pytest.mark.parametrize("spec", [counting_anew, counting_on_thread_anew], ids=["async", "sync"])
def test_a_worker_may_die_at_each_write(spec: Any) -> None:
    """Before and after that of the continuation, too: what a replay repeats is the last iteration."""
    report = assert_crash_safe(spec, 0, 2)
    assert not report.missed
    assert [one for one in report.operations if "'~" in one and "#" not in one and "stream" not in one]


@workflow
async def family_anew(number: int) -> list[str]:
    """A child of each iteration, which is continued itself, beside tasks that have names."""
    children = [counting_anew.start_async(number, number + 2), counting_anew.start_async(number, number + 1)]
    handles = [await child for child in children]
    found = await asyncio.gather(*(asyncio.create_task(one.result_async(), name="waits") for one in handles))
    await write_stream_async("found", found)
    if number < 2:
        continue_as_new(number + 1)
    return [one.workflow_id for one in handles]


def test_the_children_of_each_iteration_have_ids_of_their_own(engine: Engine) -> None:
    handle = engine.start(family_anew, 0)
    ids = handle.result()
    assert ids == [f"{handle.workflow_id}/~2+counting_anew#{number}" for number in range(2)]
    assert [*engine.read_stream(handle.workflow_id, "found")] == [
        [f"counted to {number + 2}", f"counted to {number + 1}"] for number in range(3)
    ]


# -- what carries over ---------------------------------------------------------------------------------------------


@workflow(inputs=["words"])
async def listening_anew(number: int) -> list[Any]:
    """Takes one word and one message an iteration."""
    word = await read_input_async("words").read()
    found = [word.value, await recv_async("go"), number]
    await write_stream_async("heard", found)
    if number < 4:
        continue_as_new(number + 1)
    return [item.value async for item in read_input_async("words", start=3) if not item.closed]


def test_inputs_and_messages_go_on_where_the_iteration_before_has_come_to(engine: Engine) -> None:
    """What was there before comes once, and what comes later, too."""
    handle = engine.start(listening_anew, 0)
    for number in range(5):
        engine.write_stream(handle.workflow_id, "words", f"w{number}")
        engine.send(handle.workflow_id, f"m{number}", "go")
    engine.close_stream(handle.workflow_id, "words")
    assert handle.result() == ["w3", "w4"]
    heard = [*engine.read_stream(handle.workflow_id, "heard")]
    assert heard == [[f"w{number}", f"m{number}", number] for number in range(5)]


@workflow
async def receiving_anew(number: int) -> list[Any]:
    """Of two receivers one gives up: its message goes to the next one, in this iteration or in the next."""

    async def got() -> Any:
        return await recv_async("m")

    tasks = [asyncio.create_task(got(), name=f"task {name}") for name in "ab"]
    done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    found = sorted(task.result() for task in tasks if task.done() and not task.cancelled())
    await write_stream_async("got", found)
    assert done
    if number < 3:
        continue_as_new(number + 1)
    return found


def test_a_receiver_that_has_given_up_leaves_its_message_to_the_next_iteration(engine: Engine) -> None:
    handle = engine.start(receiving_anew, 0)
    with suppress(WorkflowEndedError):  # of one or two an iteration, the last ones may come too late
        for number in range(8):
            engine.send(handle.workflow_id, number, "m")
    handle.result()
    got = [one for found in engine.read_stream(handle.workflow_id, "got") for one in found]
    assert got == [*range(len(got))]


@workflow(inputs=["items"])
async def looping_anew(number: int) -> list[int]:
    """Handles what comes until its time is over, several items at a time, in any order."""

    async def handled(item: int) -> int:
        ledger.note(["handled", item])
        if item % 3 == 2 and number < item:
            await asyncio.sleep(FOR_EVER)
        return item

    try:
        async with timeout(0.2):
            await for_each_async("items", handled, concurrency=3, ordered=False, collect=True)
            return []
    except TimeoutError:
        await write_stream_async("iterations", number)
    return continue_as_new(number + 3)


def test_a_loop_goes_on_behind_what_is_done(engine: Engine) -> None:
    """Items that were done behind one that was not are not handled again; those that were running are."""
    handle = engine.start(looping_anew, 0)
    for number in range(9):
        engine.write_stream(handle.workflow_id, "items", number)
    engine.close_stream(handle.workflow_id, "items")
    handle.result()
    handled = [item for what, item in ledger.noted() if what == "handled"]
    assert {*handled} == {*range(9)}
    assert all(handled.count(item) == 1 for item in range(9) if item % 3 != 2)
    assert len([*engine.read_stream(handle.workflow_id, "iterations")]) >= 2


@workflow
async def closing_anew(number: int) -> str:
    """Closes a stream in one iteration, and writes to it in a later one."""
    if number == 0:
        await write_stream_async("once", "only")
        await close_stream_async("once")
    try:
        await write_stream_async("once" if number == 2 else "open", number)
    except StreamClosedError:
        return f"closed in {number}"
    return continue_as_new(number + 1)


def test_a_closed_stream_stays_closed(engine: Engine) -> None:
    handle = engine.start(closing_anew, 0)
    assert handle.result() == "closed in 2"
    assert [*engine.read_stream(handle.workflow_id, "once")] == ["only"]
    assert [*engine.read_stream(handle.workflow_id, "open")] == [0, 1]


@workflow
async def closing_each_time(number: int) -> str:
    """Each iteration closes the same stream, and writes behind its end."""
    if number == 0:
        await write_stream_async("once", "only")
    await close_stream_async("once")
    if number % 2:
        with suppress(StreamClosedError):
            await write_stream_async("once", number)
    await more(number)
    return "closed" if number == 5 else continue_as_new(number + 1)


def test_an_iteration_knows_what_the_one_before_has_closed(engine: Engine) -> None:
    """Without a look at the tables, which would be a new pass each time."""
    handle = engine.start(closing_each_time.options(workflow_id="closing"), 0)
    assert handle.result() == "closed"
    assert [*engine.read_stream("closing", "once")] == ["only"]
    assert engine.workflows.get("closing").epoch == 1


# -- refusals --------------------------------------------------------------------------------------------------------


@workflow
async def refusing_anew(how: str, number: int = 0) -> str:
    """Tries to continue where that is refused, and then where it is not."""
    if number == 1:
        return "continued"

    async def aside() -> None:
        if how == "in a task":
            continue_as_new(how, 1)
        await sleep_async(FOR_EVER)

    task = asyncio.create_task(aside()) if how.endswith("task") else None
    try:
        if how == "in a task" and task is not None:
            await task
        elif how == "in a step":
            await stepping(how)
        elif how == "arguments":
            continue_as_new(how, 1, 2)
        elif how == "types":
            continue_as_new(how, "one")
        else:
            await asyncio.sleep(0)
            continue_as_new(how, 1)
    except (ContinueAsNewError, InWorkflowError, TypeError, SerializationError) as refused:
        await write_stream_async("refused", type(refused).__name__)
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return continue_as_new(how, number=1)


@step
async def stepping(how: str) -> None:
    """A step."""
    continue_as_new(how, 1)


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("beside a task", "ContinueAsNewError"),
        ("in a task", "ContinueAsNewError"),
        ("in a step", "InWorkflowError"),
        ("arguments", "TypeError"),
        ("types", "SerializationError"),
    ],
)
def test_it_is_refused_with_a_typed_error_and_the_body_goes_on(engine: Engine, how: str, error: str) -> None:
    handle = engine.start(refusing_anew, how)
    assert handle.result() == "continued"
    assert [*engine.read_stream(handle.workflow_id, "refused")] == [error]


def test_outside_of_workflows_it_is_refused() -> None:
    with pytest.raises(NotInWorkflowError, match="in whose body"):
        continue_as_new(1)


@step
async def undone() -> None:
    """Undoes."""
    ledger.note(["undone"])


@workflow(compensates=True)
async def compensating_anew(number: int) -> str:
    """Would forget what is to be undone."""
    if number == 0:
        continue_as_new(1)
    compensate(undone)
    try:
        continue_as_new(2)
    except ContinueAsNewError as refused:
        return str(refused)


def test_it_is_refused_while_something_is_to_be_undone(engine: Engine) -> None:
    assert "'undone'" in engine.run(compensating_anew, 0)
    assert ledger.noted() == []


@workflow
async def cleaning_up_anew(number: int) -> str:
    """Leaves by a task group, past an ``except Exception``, with a step in a ``finally``."""
    if number == 2:
        return "done"
    try:
        async with asyncio.TaskGroup():
            continue_as_new(number + 1)
    except Exception:  # noqa: BLE001 (what the test is about)
        return "caught"
    finally:
        await more(number)


def test_cleaning_up_belongs_to_the_iteration_that_ends(engine: Engine) -> None:
    handle = engine.start(cleaning_up_anew, 0)
    assert handle.result() == "done"
    assert [one.key for one in engine.list_steps(handle.workflow_id)] == [
        "more#0",
        "~1",
        "~1/more#0",
        "~2",
    ]


async def test_called_like_a_function_it_is_called_again() -> None:
    assert await counting_anew(0, 3) == "counted to 3"
    assert await asyncio.to_thread(counting_on_thread_anew, 0, 3) == "counted to 3"


class Counters:
    """Has a workflow that is a class method."""

    step_size = 1

    @workflow
    @classmethod
    async def climb(cls, number: int) -> str:
        """Climbs, each class in steps of its own."""
        if number < 4:
            continue_as_new(number + cls.step_size)
        return f"{cls.__name__} at {number}"


class DoubleCounters(Counters):
    """In steps of two."""

    step_size = 2


def test_a_class_method_keeps_its_class(engine: Engine) -> None:
    own: Any = Counters.climb
    double: Any = DoubleCounters.climb
    assert engine.run(double, 1) == "DoubleCounters at 5"
    assert engine.run(own, 1) == "Counters at 4"


# -- requests, forks, retention --------------------------------------------------------------------------------------


@workflow
async def endless_anew(number: int) -> None:
    """Never ends by itself."""
    await write_stream_async("counted", number)
    continue_as_new(number + 1)


def test_a_start_with_the_first_arguments_is_no_other_one(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    """The row has the arguments of the iteration that it is in."""
    climb: Any = Counters.climb
    handle = engine.start(climb.options(workflow_id="w"), 1)
    assert handle.result() == "Counters at 4"
    with caplog.at_level("WARNING", "dbosflow"):
        engine.start(climb.options(workflow_id="w"), 1)
    assert caplog.messages == []


def test_a_cancellation_ends_it_between_any_two_iterations(engine: Engine) -> None:
    handle = engine.start(endless_anew, 0)
    for value in engine.read_stream(handle.workflow_id, "counted"):
        if value == 3:
            break
    handle.cancel(reason="enough")
    with pytest.raises(WorkflowCancelledError, match="enough"):
        handle.result()
    found, closed = engine.read_stream(handle.workflow_id, "counted").read_all()
    assert found == [*range(len(found))]
    assert closed


def test_its_deadline_counts_from_the_first_iteration(engine: Engine, database_url: str) -> None:
    handle = engine.start(endless_anew.options(workflow_id="w", timeout=3600), 0)
    for value in engine.read_stream("w", "counted"):
        if value == 3:
            break
    query = "SELECT deadline_at - created_at = interval '1 hour' FROM dbosflow.workflow"
    assert rows(database_url, query) == [(True,)]
    expire(engine, "w")
    with pytest.raises(WorkflowTimeoutError):
        handle.result()
    assert engine.workflows.get("w").iteration > 0


@workflow
async def late_family_anew(number: int) -> str:
    """Starts a child in its second iteration."""
    if number == 0:
        continue_as_new(1)
    return (await counting_anew.start_async(0, 1)).workflow_id


def test_children_of_a_later_iteration_get_the_deadline(engine: Engine, database_url: str) -> None:
    child = engine.run(late_family_anew.options(timeout=3600), 0)
    deadlines = rows(database_url, "SELECT deadline_at FROM dbosflow.workflow")
    assert len(deadlines) == 2
    assert deadlines[0] == deadlines[1] != (None,)
    assert engine.handle(child).result() == "counted to 1"


@workflow
async def parting_anew(number: int) -> str:
    """Waits in the second iteration."""
    if number == 0:
        await more(0)
        continue_as_new(1)
    await more(1)
    await recv_async("go")
    return "gone"


def test_a_fork_goes_back_to_the_current_iteration_and_no_further(engine: Engine) -> None:
    handle = engine.start(parting_anew, 0)
    engine.send(handle.workflow_id, None, "go")
    assert handle.result() == "gone"
    fork = engine.workflows.fork(handle.workflow_id, from_step="~1/more#0")
    assert fork.handle.result() == "gone"
    assert ledger.noted() == [["more", 0], ["more", 1], ["more", 1]]
    for earlier in ({"from_step": "more#0"}, {"from_turn": 0}, {"from_turn": 1}):
        with pytest.raises(WorkflowForkError, match="continued as new behind turn"):
            engine.workflows.fork(handle.workflow_id, **earlier)
    assert len(engine.list_workflows()) == 2, "nothing was written of what was refused"


def test_one_that_waits_in_the_tables_wakes_in_its_iteration(database_url: str) -> None:
    with Engine(database_url, suspend_after=0.05, lease=2.0) as engine:
        handle = engine.start(parting_anew, 0)
        while handle.status() is not WorkflowStatus.WAITING:
            pass
        engine.send(handle.workflow_id, None, "go")
        assert handle.result() == "gone"
        assert engine.workflows.get(handle.workflow_id).epoch > 1
    assert ledger.noted() == [["more", 0], ["more", 1]]


def test_an_export_takes_the_iteration_along(engine: Engine, empty_database_url: str, tmp_path: Path) -> None:
    handle, file = engine.start(counting_anew, 0, 3), tmp_path / "exported.jsonl"
    handle.result()
    engine.workflows.export([handle.workflow_id], file)
    with Engine(empty_database_url) as other:
        other.workflows.import_(file)
        info = other.workflows.get(handle.workflow_id)
        assert (info.iteration, info.output) == (2, "counted to 3")


@workflow
async def long_anew(number: int, until: int) -> int:
    """Many iterations, each with a few records."""
    number = await more(await told(number))
    if number < until:
        continue_as_new(number, until)
    return number


def test_the_records_of_earlier_iterations_are_removed(engine: Engine, database_url: str) -> None:
    """But for those which show that values in a stream are committed; readers see all of these, and each once."""
    handle = engine.start(long_anew, 0, 200)
    assert handle.result() == 200
    kinds = dict(rows(database_url, "SELECT kind, count(*) FROM dbosflow.step GROUP BY 1"))
    assert kinds["step"] + kinds["continued"] < 200 + 300, kinds
    assert kinds["continued"] < 150
    committed = engine.read_stream(handle.workflow_id, "told", view="committed")
    assert [*committed] == [*range(200)]


@workflow
def echoing_anew(number: int) -> str:
    """A sync one that receives."""
    said = recv("say")
    if said == "stop":
        return f"stopped after {number}"
    return continue_as_new(number + 1)


def test_a_full_inbox_gets_room_over_many_iterations(engine: Engine, database_url: str) -> None:
    """What was received is removed, however few messages an iteration takes."""
    handle = engine.start(echoing_anew, 0)
    for number in range(100):
        engine.send(handle.workflow_id, number, "say")
    engine.send(handle.workflow_id, "stop", "say")
    assert handle.result() == "stopped after 100"
    query = "SELECT sum(count) FROM dbosflow.stream_block WHERE workflow_id = %s"
    eventually(lambda: rows(database_url, query, handle.workflow_id)[0][0] < 101 - 32)
