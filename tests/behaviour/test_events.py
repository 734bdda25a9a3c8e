"""Events: the last value that a workflow has set counts; set once each, taken back with a failed attempt."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, recv, recv_async, set_event, set_event_async, sleep_async, step, workflow
from dbosflow.errors import (
    ConfigurationError,
    EventNotFoundError,
    NotInWorkflowError,
    SerializationError,
    WaitTimeoutError,
    WorkflowNotFoundError,
)
from tests.behaviour.interruption import Interruption
from tests.behaviour.tables import disorder, rows, stored_values
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 60.0
KEY = "dbosflow/event/state"


@workflow
async def telling(count: int) -> None:
    """Sets an event for each message that it gets."""
    for _ in range(count):
        await set_event_async("state", await recv_async())


@workflow
def telling_on_thread(count: int) -> None:
    for _ in range(count):
        set_event("state", recv())


both = pytest.mark.parametrize("target", [telling, telling_on_thread], ids=["loop", "thread"])


@both
def test_the_last_value_counts(engine: Engine, target: Any) -> None:
    """While the workflow runs, and when it has ended; a wait for a newer one gets that."""
    handle = engine.start(target.options(workflow_id="w"), 3)
    engine.send("w", {"done": 0.5})
    assert engine.get_event("w", "state", timeout=PATIENCE) == {"done": 0.5}
    offset = engine.events("w")["state"].offset
    engine.send("w", "second")
    assert engine.get_event("w", "state", after=offset, timeout=PATIENCE) == "second"
    engine.send("w", 3)
    handle.result(timeout=PATIENCE)
    assert engine.get_event("w", "state") == engine.get_event("w", "state", committed=True, type=int) == 3
    assert stored_values(engine.database_url, "w", KEY) == [(0, {"done": 0.5}), (1, "second"), (2, 3)]
    assert disorder(engine.database_url) == []


def test_a_reader_of_another_engine_waits_without_a_poll(database_url: str) -> None:
    with (
        Engine(database_url, safety_poll=600.0) as engine,
        Engine(database_url, executes=False, safety_poll=600.0) as client,
    ):
        engine.start(telling.options(workflow_id="w"), 1)
        got: list[Any] = []
        reader = threading.Thread(target=lambda: got.append(client.get_event("w", "state", timeout=PATIENCE)))
        reader.start()
        engine.send("w", "news")
        reader.join(PATIENCE)
        assert got == ["news"]


def test_no_terminal_frame_ends_an_event_and_no_listing_of_streams_shows_it(engine: Engine) -> None:
    """Unless it is asked for."""
    handle = engine.start(telling.options(workflow_id="w"), 1)
    engine.send("w", 1)
    handle.result(timeout=PATIENCE)
    assert rows(engine.database_url, "SELECT DISTINCT kind FROM dbosflow.stream_block") == [("values",)]
    assert engine.streams.list("w") == []
    assert [one.key for one in engine.streams.list("w", reserved=True)] == [KEY, "dbosflow/inbox/"]
    assert engine.streams.info("w", KEY).values == 1
    assert engine.read_stream("w", KEY).read_all() == ([1], True)


# -- steps -----------------------------------------------------------------------------------------------------------


def test_what_a_step_sets_shows_at_once_and_is_taken_back_if_it_fails(engine: Engine) -> None:
    """The value before counts again; a committed view never shows the other."""
    reached, go_on = threading.Event(), threading.Event()

    @step
    def working() -> None:
        set_event("state", "in the step")
        reached.set()
        go_on.wait(PATIENCE)
        raise ValueError

    @workflow(name="events.failing")
    async def failing() -> None:
        await set_event_async("state", "before")
        try:
            await working.run_async()
        except ValueError:
            await recv_async()

    engine.start(failing.options(workflow_id="w"))
    assert reached.wait(PATIENCE)
    assert engine.get_event("w", "state", after=0, timeout=PATIENCE) == "in the step"
    assert engine.get_event("w", "state", committed=True, timeout=PATIENCE) == "before"
    go_on.set()
    eventually(lambda: engine.get_event("w", "state") == "before")
    assert engine.events("w")["state"].offset == 0
    engine.send("w", "end")


def test_a_committed_wait_ends_when_the_step_succeeds(engine: Engine) -> None:
    go_on = threading.Event()

    @step
    def working() -> None:
        set_event("state", "done")
        go_on.wait(PATIENCE)

    @workflow(name="events.committing")
    async def committing() -> None:
        await working.run_async()
        await recv_async()

    engine.start(committing.options(workflow_id="w"))
    assert engine.get_event("w", "state", timeout=PATIENCE) == "done"
    with pytest.raises(WaitTimeoutError):
        engine.get_event("w", "state", committed=True, timeout=0.05)
    go_on.set()
    assert engine.get_event("w", "state", committed=True, timeout=PATIENCE) == "done"
    engine.send("w", "end")


# -- once ------------------------------------------------------------------------------------------------------------


def test_a_replay_sets_nothing_again(database_url: str) -> None:
    interruption = Interruption()

    async def setting() -> str:
        for number in range(3):
            await set_event_async("state", number)
        await sleep_async(0.001)
        await interruption.point_async()
        await set_event_async("state", 3)
        return "done"

    assert interruption.two_passes(database_url, workflow(setting)) == "done"
    assert [value for _, value in rows(database_url, "SELECT 1, value FROM dbosflow.stream_value")] == [0, 1, 2, 3]
    assert disorder(database_url) == []


def test_events_are_not_counted_against_the_limit_of_streams(database_url: str) -> None:
    """Only the last value counts, so no number of them fills anything."""
    with Engine(database_url, stream_values=2) as engine:

        @workflow(name="events.many")
        async def many() -> None:
            for number in range(10):
                await set_event_async("state", number)

        engine.run(many.options(workflow_id="w"))
        assert engine.get_event("w", "state") == 9


# -- what is refused -------------------------------------------------------------------------------------------------


def test_a_wait_ends_with_the_workflow(engine: Engine) -> None:
    """Whoever waits for what never comes is told so; and so is whoever asks later."""
    engine.start(telling.options(workflow_id="w"), 1)
    errors: list[type[BaseException]] = []

    def waiting(wait: Callable[[], Any]) -> threading.Thread:
        def call() -> None:
            try:
                wait()
            except EventNotFoundError as error:
                errors.append(type(error))

        thread = threading.Thread(target=call)
        thread.start()
        return thread

    waiters = [
        waiting(lambda: engine.get_event("w", "never")),
        waiting(lambda: engine.get_event("w", "state", after=0)),
    ]
    engine.send("w", 1)
    for waiter in waiters:
        waiter.join(PATIENCE)
    assert errors == [EventNotFoundError] * 2
    with pytest.raises(EventNotFoundError, match=r"ended \(succeeded\) without setting event 'never'"):
        engine.get_event("w", "never")


def test_wrong_arguments_are_refused_at_the_door(engine: Engine) -> None:
    with pytest.raises(NotInWorkflowError):
        set_event("state", 1)
    with pytest.raises(NotInWorkflowError):
        asyncio.run(set_event_async("state", 1))
    with pytest.raises(WorkflowNotFoundError):
        engine.get_event("nobody", "state")
    with pytest.raises(WorkflowNotFoundError):
        engine.events("nobody")
    for name in ("", "x" * 473):
        with pytest.raises(ConfigurationError, match="event name"):
            engine.get_event("w", name)
    with pytest.raises(ConfigurationError, match="after"):
        engine.get_event("w", "state", after=-1)
    with pytest.raises(ConfigurationError, match="timeout"):
        engine.get_event("w", "state", timeout=-1)
    engine.start(telling.options(workflow_id="w"), 2)
    engine.send("w", "text")
    with pytest.raises(SerializationError):
        engine.get_event("w", "state", type=int, timeout=PATIENCE)
