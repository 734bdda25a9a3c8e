"""The states of a run: each cell of the table in the module's docstring, and each arrow below it."""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import Future
from typing import TYPE_CHECKING

import pytest

from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.runs import state as state_module
from dbosflow._runtime.runs.entries import Ending, Record
from dbosflow._runtime.runs.state import RunStopped
from dbosflow.errors import LeaseLostError, NonDeterminismError, WorkflowCancelledError
from dbosflow.types import WorkflowStatus
from tests.runtime.hand_made import BODY, Calls, attempt, make_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow._runtime.execution.run import Run

ENDING = Ending(WorkflowStatus.SUCCEEDED)


def drain(run: Run) -> None:
    """The engine closes, and a step body is under way."""
    run.body_begins()
    run.drain(lambda: None)


def end(run: Run) -> None:
    """Its body has returned."""
    run.end(ENDING)


def stop(run: Run) -> None:
    """The lease is lost."""
    run.stop("lost")


def go_elsewhere(run: Run) -> None:
    """It was stopped, and goes on elsewhere."""
    run.stop("lost")
    run.settle(None)


def finish(run: Run) -> None:
    """Its end is durable."""
    run.end(ENDING)
    entries, _, _ = run.buffer.take(10**6)
    run.committed(entries)
    run.settle(ENDING)


CAUSES: dict[str, Callable[[Run], object]] = {
    # By the state that they lead to, which is the first word.
    "active": lambda run: None,
    "draining": drain,
    "cancelled": lambda run: run.cancel(),
    "ending": end,
    "stopped": stop,
    "over elsewhere": go_elsewhere,
    "over with its end": finish,
}


def begins(run: Run) -> None:
    """An operation asks whether it may begin."""
    run.check_may_begin()


def records(run: Run) -> None:
    """An operation that has begun has its outcome."""
    run.append(Record("work#0", RecordKind.STEP))


def writes(run: Run) -> None:
    """The body writes a value."""
    run.streams.write("out", "1", BODY)


def waits(run: Run) -> None:
    """The body waits until all of it is durable."""
    run.add_barrier(Future())


QUESTIONS = (begins, records, writes, waits)

ROWS = {
    state: cells
    for state, *cells in re.findall(
        r"^(\w+) +.*?  (yes|no|held back) +(yes|no) +(yes|no) +(yes|no)$", state_module.__doc__ or "", re.MULTILINE
    )
}
"""The table, as the docstring has it: what each state allows."""

MAY_BRANCH = {"active", "draining", "cancelled"}


def test_the_table_of_a_runs_states_has_a_row_for_each_state() -> None:
    assert ROWS.keys() == {name.split()[0] for name in CAUSES}


def refusal(run: Run, question: Callable[[Run], None]) -> BaseException | None:
    """What is raised in answer; ``None`` is a yes."""
    try:
        question(run)
    except (RunStopped, asyncio.CancelledError, WorkflowCancelledError) as error:
        return error
    return None


@pytest.mark.parametrize("question", QUESTIONS, ids=[question.__name__ for question in QUESTIONS])
@pytest.mark.parametrize("state", CAUSES)
def test_a_run_allows_in_each_state_what_the_table_says(state: str, question: Callable[[Run], None]) -> None:
    run = make_run()
    CAUSES[state](run)
    error = refusal(run, question)
    cell = ROWS[state.split(maxsplit=1)[0]][QUESTIONS.index(question)]
    assert ("no" if error is not None else "yes") == ("yes" if cell == "held back" else cell)
    assert run.is_draining == (state == "draining")
    if run.stopping is not None:
        assert error is run.stopping
    elif error is not None:
        assert isinstance(error, WorkflowCancelledError if state == "cancelled" else RunStopped)


@pytest.mark.parametrize("state", CAUSES)
def test_tasks_of_a_run_are_branches_as_long_as_it_is_neither_ending_nor_stopped(state: str) -> None:
    """Those of a cancelled one too: its ``finally`` may gather, and what is in there raises by itself."""
    run = make_run()
    CAUSES[state](run)
    assert run.may_branch == (state in MAY_BRANCH)
    assert run.may_write == (refusal(run, writes) is None)


@pytest.mark.parametrize(
    ("question", "yes_in"),
    [
        ("is_finishing", {"cancelled", "ending", "over with its end"}),
        ("is_cut_short", {"cancelled", "ending", "stopped", "over elsewhere", "over with its end"}),
        ("gets_no_further", {"draining", "cancelled", "stopped", "over elsewhere"}),
    ],
)
@pytest.mark.parametrize("state", CAUSES)
def test_each_question_about_a_run_is_answered_by_its_state(state: str, question: str, yes_in: set[str]) -> None:
    run = make_run()
    CAUSES[state](run)
    answer = getattr(run, question)
    assert (answer() if callable(answer) else answer) == (state in yes_in)


# -- the arrows ------------------------------------------------------------------------------------------------------


def test_a_run_that_was_stopped_stays_stopped_for_the_first_reason() -> None:
    run = make_run()
    run.stop("first")
    run.stop("second")
    assert run.cancel() is False
    assert str(run.stopping) == "first"
    assert isinstance(refusal(run, begins), RunStopped)


def test_a_run_that_ends_is_not_cancelled_any_more() -> None:
    """The statement that would end it sees the request."""
    run = make_run()
    run.end(ENDING)
    assert run.cancel() is False
    assert not run.cancelled


def test_a_cancelled_run_that_ends_records_nothing_and_waits_until_its_end_is_durable() -> None:
    run = make_run()
    assert run.cancel() is True
    assert run.cancel() is False
    run.end(Ending(WorkflowStatus.CANCELLED))
    answers = [refusal(run, question) is None for question in QUESTIONS]
    assert answers == [False, False, False, True]


def test_a_run_that_is_cancelled_and_then_stopped_is_stopped() -> None:
    """Its code must do nothing for a run that is owned elsewhere, not even what it does when it is cancelled."""
    run = make_run()
    run.cancel()
    run.stop("lost")
    assert refusal(run, begins) is refusal(run, records) is refusal(run, waits) is run.stopping


def test_a_parked_run_is_stopped_and_keeps_the_first_contradiction() -> None:
    run = make_run()
    first = run.park(NonDeterminismError("wf", "one"))
    run.park(NonDeterminismError("wf", "other"))
    assert run.contradiction is first
    assert run.stopping is not None


def test_a_run_that_was_stopped_before_has_no_contradiction() -> None:
    """Its end would be written although somebody else owns it."""
    run = make_run()
    run.stop("lost")
    run.park(NonDeterminismError("wf", "late"))
    assert run.contradiction is None


@pytest.mark.parametrize(("is_async", "kind"), [(True, asyncio.CancelledError), (False, WorkflowCancelledError)])
def test_code_hears_of_a_cancellation_by_the_error_of_its_colour(is_async: object, kind: type[BaseException]) -> None:
    run = make_run(is_async=bool(is_async))
    run.cancel()
    for question in (begins, records, writes):
        assert type(refusal(run, question)) is kind


def test_what_an_attempt_that_is_over_still_writes_is_refused_in_an_active_run() -> None:
    run, producer = make_run(), attempt("work#0")
    run.check_may_write(producer.attempt)
    assert producer.attempt is not None
    producer.attempt.closed = True
    with pytest.raises(LeaseLostError):
        run.check_may_write(producer.attempt)
    run.check_may_write(None)


# -- what waits ------------------------------------------------------------------------------------------------------


def test_a_barrier_in_a_run_that_has_nothing_buffered_is_passed_at_once() -> None:
    run, empty, behind = make_run(), Future[None](), Future[None]()
    run.add_barrier(empty)
    assert empty.done()
    run.append(Record("work#0", RecordKind.STEP))
    run.add_barrier(behind)
    assert not behind.done()
    entries, _, _ = run.buffer.take(10**6)
    run.committed(entries)
    assert behind.done()


def test_all_waiting_in_a_run_that_stops_ends_with_the_reason() -> None:
    run, barrier, outcome = make_run(), Future[None](), Future[None]()
    run.append(Record("work#0", RecordKind.STEP, waiter=outcome))
    run.add_barrier(barrier)
    run.stop("lost")
    assert barrier.exception() is outcome.exception() is run.stopping
    assert run.buffer.take(10**6) == ((), 0, False)


def test_a_record_that_is_refused_is_waited_for_by_nobody() -> None:
    run, waiter = make_run(), Future[None]()
    run.cancel()
    with pytest.raises(WorkflowCancelledError):
        run.append(Record("work#0", RecordKind.STEP, waiter=waiter))
    assert run.buffer.take(10**6) == ((), 0, False)
    run.stop("lost")
    assert not waiter.done()


def test_who_asks_to_hear_of_a_cancellation_hears_once_and_at_once_if_it_was() -> None:
    run, called = make_run(), list[str]()
    run.when_cancelled(lambda: called.append("before"))
    run.cancel()
    run.cancel()
    run.when_cancelled(lambda: called.append("after"))
    assert called == ["before", "after"]
    assert run.interrupted.is_set()


def test_a_listener_that_fails_keeps_no_other_from_hearing_of_a_cancellation(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ValueError

    run, called = make_run(), list[str]()
    run.when_cancelled(fail)
    run.when_cancelled(lambda: called.append("other"))
    run.cancel()
    assert called == ["other"]
    assert "a listener for its cancellation failed" in caplog.text


def test_a_writer_waits_for_room_only_in_a_full_buffer_of_a_run_that_goes_on() -> None:
    calls, called = Calls(), list[str]()
    run = make_run(calls=calls, buffer_bytes=100)
    run.when_room(lambda: called.append("empty"))
    run.append(Record("work#0", RecordKind.STEP))
    run.when_room(lambda: called.append("full"))
    assert called == ["empty"]
    assert calls.back_pressure == ["wf"]
    run.stop("lost")
    run.when_room(lambda: called.append("stopped"))
    assert called == ["empty", "full", "stopped"]


@pytest.mark.parametrize(
    ("before", "after", "drained_at"),
    [(0, 0, "once"), (1, 1, "after the body"), (2, 1, "never"), (2, 2, "after the body")],
)
def test_a_run_is_drained_when_no_step_body_is_under_way(before: int, after: int, drained_at: str) -> None:
    run, drained = make_run(), list[str]()
    for _ in range(before):
        run.body_begins()
    run.drain(lambda: drained.append("drained"))
    assert drained == ["drained"] * (drained_at == "once")
    for _ in range(after):
        run.body_ended()
    assert drained == ["drained"] * (drained_at != "never")


def test_a_run_at_its_end_is_not_drained_it_just_ends() -> None:
    run, drained = make_run(), list[str]()
    run.body_begins()
    run.end(ENDING)
    run.drain(lambda: drained.append("drained"))
    run.body_ended()
    assert drained == []


@pytest.mark.parametrize("outcome", [ENDING, None], ids=["ended", "elsewhere"])
async def test_whoever_waits_for_the_end_of_a_run_gets_the_first_outcome(outcome: Ending | None) -> None:
    run = make_run()
    waiter = asyncio.ensure_future(run.settled())
    await asyncio.sleep(0)
    assert run.is_awaited
    run.settle(outcome)
    run.settle(Ending(WorkflowStatus.FAILED))
    assert await waiter is outcome
    assert await run.settled() is outcome
    assert not run.is_awaited
