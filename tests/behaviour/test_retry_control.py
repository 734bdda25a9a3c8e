"""A failed attempt says whether another one makes sense, and when; a step of a plain function has options, too."""

from __future__ import annotations

import asyncio
import functools
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import (
    Engine,
    for_each,
    run_step,
    run_step_async,
    step,
    workflow,
)
from dbosflow.errors import ConfigurationError, DefinitionError, NonRetryableError, RetryAfter
from dbosflow.testing import MovableClock
from tests.behaviour.tables import records, rows

if TYPE_CHECKING:
    from collections.abc import Callable

WAITS = "SELECT extract(epoch FROM wake_at - recorded_at)::float FROM dbosflow.step WHERE kind = 'attempt' ORDER BY seq"


class RefusedError(Exception):
    """What an outside service says."""


def failing(*errors: BaseException) -> tuple[Callable[[], str], list[int]]:
    """A body that raises these, one after the other, and then returns; and the numbers of its calls."""
    bodies: list[int] = []

    def body() -> str:
        bodies.append(len(bodies))
        if len(bodies) <= len(errors):
            raise errors[len(bodies) - 1]
        return f"attempt {len(bodies)}"

    return body, bodies


def outcome(engine: Engine, body: Callable[[], str], **options: Any) -> Any:
    """What a workflow gets of a step with these options, by its record as well as live."""

    @workflow
    def flow() -> str:
        return run_step(body, name="body", **options)

    @workflow
    async def flow_async() -> str:
        return await run_step_async(body, name="body", **options)

    chosen: Any = flow if asyncio.iscoroutinefunction(body) else flow_async
    try:
        return engine.run(chosen)
    except Exception as error:  # noqa: BLE001 (that is the outcome)
        return error


def test_an_attempt_that_no_other_can_help_is_the_last_one(engine: Engine) -> None:
    """Raised as itself, or around the exception that the workflow is to see."""
    body, bodies = failing(NonRetryableError("no such account"))
    error = outcome(engine, body, max_attempts=9, interval=0)
    assert (type(error), str(error), bodies) == (NonRetryableError, "no such account", [0])
    body, bodies = failing(OSError("again"), NonRetryableError(RefusedError("no")))
    error = outcome(engine, body, max_attempts=9, interval=0)
    assert (type(error), str(error), bodies) == (RefusedError, "no", [0, 1])


def test_one_such_failure_in_a_group_is_enough(engine: Engine) -> None:
    """The step as a whole cannot succeed any more."""
    body, bodies = failing(ExceptionGroup("two calls", [OSError("again"), NonRetryableError("no")]))
    error = outcome(engine, body, max_attempts=9, interval=0)
    assert isinstance(error, ExceptionGroup)
    assert [type(part) for part in error.exceptions] == [OSError, NonRetryableError]
    assert bodies == [0]


def test_the_next_attempt_begins_when_the_last_one_said(engine: Engine, database_url: str) -> None:
    """On record, whatever the policy's own waits and errors are."""
    MovableClock(skips=True).install(engine)
    body, bodies = failing(RetryAfter(3600), RetryAfter(timedelta(hours=2), RefusedError("slow down")))
    options = {"max_attempts": 3, "interval": 0, "max_interval": 0, "retry_on": KeyError}
    assert outcome(engine, body, **options) == "attempt 3"
    assert len(bodies) == 3
    waits = [wait for (wait,) in rows(database_url, WAITS)]
    assert waits[0] == pytest.approx(3600, abs=1)
    assert waits[1] == pytest.approx(3 * 3600, abs=10)  # the test's clock is an hour ahead


def test_behind_the_last_attempt_it_is_the_failure_or_carries_it(engine: Engine) -> None:
    body, _ = failing(RetryAfter(3600))
    error = outcome(engine, body)
    assert (type(error), error.seconds, str(error)) == (RetryAfter, 3600, "to be tried again after 3600 s")
    body, _ = failing(RetryAfter(3600, RefusedError("slow down")))
    error = outcome(engine, body)
    assert (type(error), str(error)) == (RefusedError, "slow down")


@pytest.mark.parametrize("seconds", [-1, float("nan"), "3", None, True, 1e12])
def test_a_wait_that_is_none_is_refused_where_it_is_made(seconds: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"RetryAfter\(.*must be a number of seconds"):
        RetryAfter(seconds)


def test_a_function_says_which_failures_are_tried_again(engine: Engine) -> None:
    """It gets the exception itself, and nothing that is no ``Exception``."""
    body, bodies = failing(OSError(5, "try again"), OSError(2, "not there"))
    asked: list[BaseException] = []

    def worth_it(error: Exception) -> bool:
        asked.append(error)
        return isinstance(error, OSError) and error.errno == 5

    error = outcome(engine, body, max_attempts=9, interval=0, retry_on=worth_it)
    assert (type(error), error.errno, bodies) == (FileNotFoundError, 2, [0, 1])
    assert [getattr(one, "errno", None) for one in asked] == [5, 2]


def test_what_that_function_raises_is_the_outcome(engine: Engine) -> None:
    """With the failure that it was asked about as its context."""
    body, bodies = failing(OSError("again"))

    def broken(_: Exception) -> bool:
        msg = "broken"
        raise LookupError(msg)

    error = outcome(engine, body, max_attempts=9, interval=0, retry_on=broken)
    assert (type(error), str(error), bodies) == (LookupError, "broken", [0])
    assert any("OSError: again" in note for note in error.__notes__)


def test_a_wait_with_jitter_is_drawn_once_and_is_on_record(engine: Engine, database_url: str) -> None:
    """Within its bounds, and not the same each time; without jitter the record needs no time."""
    MovableClock(skips=True).install(engine)
    body, _ = failing(*[OSError("again")] * 20)
    options = {"max_attempts": 30, "interval": 100, "backoff": 1, "max_interval": 120}
    assert outcome(engine, body, jitter=0.5, **options) == "attempt 21"
    moments = rows(database_url, WAITS)
    ahead, waits = 0.0, []
    for (moment,) in moments:
        waits.append(moment - ahead)
        ahead = moment
    assert all(49 <= wait <= 121 for wait in waits), waits
    assert len({round(wait, 1) for wait in waits}) > 3
    rows(database_url, "DELETE FROM dbosflow.step RETURNING 1")
    body, _ = failing(OSError("again"))
    outcome(engine, body, max_attempts=2, interval=0)
    assert rows(database_url, WAITS) == [(None,)]


def test_items_of_a_loop_follow_the_same_rules(engine: Engine, database_url: str) -> None:
    """A handler is a step: what cannot succeed is a dead letter at once, and a wait is on record."""
    seen: list[int] = []

    @step(max_attempts=3, interval=0)
    def handle(number: int) -> None:
        seen.append(number)
        if number == 1:
            raise NonRetryableError(RefusedError("never"))
        if number == 2 and seen.count(2) == 1:
            raise RetryAfter(0.05)

    @workflow(inputs=["in"])
    def flow() -> list[int]:
        done = for_each("in", handle, on_error="dead_letter")
        return [done.count, done.failed]

    handle_ = engine.start(flow.options(workflow_id="w"))
    for number in range(3):
        engine.write_stream("w", "in", number)
    engine.close_stream("w", "in")
    assert handle_.result() == [2, 1]
    assert sorted(seen) == [0, 1, 2, 2]
    ((wait,),) = rows(database_url, WAITS)
    assert wait == pytest.approx(0.05, abs=0.01)


# -- run_step with options --------------------------------------------------------------------------------------------


def test_a_step_of_a_function_has_the_functions_name_and_options(engine: Engine, database_url: str) -> None:
    calls: list[int] = []

    def fetch(start: int, more: int = 1) -> int:
        calls.append(start)
        if len(calls) == 1:
            raise OSError
        return start + more

    @workflow
    async def flow() -> list[int]:
        return [
            await run_step_async(fetch, 1, max_attempts=2, interval=0),
            await run_step_async(functools.partial(fetch, more=5), 1, name="partial"),
            await run_step_async("named", fetch, 1, more=7),
            await run_step_async(len, "abc"),
        ]

    assert engine.run(flow.options(workflow_id="w")) == [2, 6, 8, 3]
    assert records(database_url, "w") == [
        ("fetch#0@1.1", "attempt"),
        *((f"{name}#0", "step") for name in ("fetch", "partial", "named", "len")),
    ]


def test_a_function_without_a_name_needs_one() -> None:
    with pytest.raises(DefinitionError, match="needs name="):
        run_step(lambda: 1)
    with pytest.raises(DefinitionError, match="needs name="):
        run_step(functools.partial(len, "abc"))
    assert run_step(lambda: 1, name="one") == 1


def test_an_unknown_option_is_refused_with_the_way_to_pass_an_argument() -> None:
    """It may be meant for the function, which would not get it."""
    with pytest.raises(ConfigurationError, match=r"no option 'base'.*functools\.partial"):
        run_step(int, "7", base=8)  # type: ignore[call-overload]
    assert run_step("int", int, "7", base=8) == 7


@pytest.mark.parametrize("options", [{"jitter": -0.1}, {"jitter": 1.5}, {"jitter": "a"}, {"max_attempts": 0}])
def test_options_are_checked_where_they_are_given(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        step(**options)
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        run_step(len, "abc", **options)


def test_a_predicate_is_a_sync_function() -> None:
    async def later(_: Exception) -> bool:
        return True

    with pytest.raises(ConfigurationError, match="must be a sync function"):
        step(retry_on=later)
