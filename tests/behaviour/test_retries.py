"""Steps are tried as often, as late and for such errors as they say; failures are on record, and survive a crash."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, step, workflow
from dbosflow.errors import ConfigurationError, SerializationError
from tests.behaviour.ledger import noted as ledger
from tests.behaviour.programs import retrying
from tests.behaviour.tables import disorder, records, rows

if TYPE_CHECKING:
    from tests.behaviour.conftest import StartProgram

PATIENCE = 60.0


class Bodies:
    """When each body of a step ran, and which of them failed."""

    def __init__(self, *errors: Exception | None) -> None:
        self.began: list[float] = []
        self._errors = errors

    def body(self) -> str:
        self.began.append(time.monotonic())
        number = len(self.began)
        error = self._errors[min(number, len(self._errors)) - 1]
        if error is not None:
            raise error
        return f"attempt {number}"

    @property
    def waits(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.began, self.began[1:], strict=False)]


@pytest.mark.parametrize("colour", ["async", "sync"])
def test_a_step_is_tried_until_it_succeeds(database_url: str, engine: Engine, colour: str) -> None:
    """Its failures are on record as attempts, its success as the step; the workflow sees the success alone."""
    bodies = Bodies(ValueError("one"), KeyError("two"), None)

    @step(max_attempts=5, interval=0.01)
    async def on_loop() -> str:
        return bodies.body()

    @step(max_attempts=5, interval=0.01)
    def on_thread() -> str:
        return bodies.body()

    @workflow
    async def flow_on_loop() -> str:
        return await on_loop()

    @workflow
    def flow_on_thread() -> str:
        return on_thread()

    flow: Any = flow_on_loop if colour == "async" else flow_on_thread
    name = "on_loop" if colour == "async" else "on_thread"
    assert engine.run(flow.options(workflow_id="w")) == "attempt 3"
    assert records(database_url, "w") == [
        (f"{name}#0@1.1", "attempt"),
        (f"{name}#0@1.2", "attempt"),
        (f"{name}#0", "step"),
    ]
    shown = engine.list_steps("w")
    assert [one.attempt for one in shown] == ["1.1", "1.2", "1.3"]
    assert [one.error and (one.error["type"], one.error["message"]) for one in shown] == [
        ("ValueError", "one"),
        ("KeyError", "'two'"),
        None,
    ]


def test_the_failure_of_the_last_attempt_is_that_of_the_step(engine: Engine) -> None:
    """When the attempts are used up, the workflow gets the last error, and the body ran exactly so often."""
    bodies = Bodies(ValueError("one"), ValueError("two"), ValueError("three"), None)

    @step(max_attempts=3, interval=0)
    async def failing() -> str:
        return bodies.body()

    @workflow
    async def flow() -> str:
        return await failing()

    with pytest.raises(ValueError, match="three"):
        engine.run(flow)
    assert len(bodies.began) == 3


def test_by_default_a_step_is_tried_once(engine: Engine) -> None:
    """A retry is asked for, since a body that failed half way may not be repeatable."""
    bodies = Bodies(ValueError("one"), None)

    @step
    async def failing() -> str:
        return bodies.body()

    @workflow
    async def flow() -> str:
        return await failing()

    with pytest.raises(ValueError, match="one"):
        engine.run(flow)
    assert len(bodies.began) == 1


@pytest.mark.parametrize("colour", ["async", "sync"])
def test_waits_between_attempts_grow_up_to_their_limit(engine: Engine, colour: str) -> None:
    """``interval``, then ``backoff`` times as long each time, up to ``max_interval``; never less."""
    bodies = Bodies(*[ValueError("again")] * 4, None)
    retry: Any = step(max_attempts=5, interval=0.05, backoff=3, max_interval=0.2)

    @retry  # type: ignore[untyped-decorator]
    async def on_loop() -> str:
        return bodies.body()

    @retry  # type: ignore[untyped-decorator]
    def on_thread() -> str:
        return bodies.body()

    @workflow
    async def flow_on_loop() -> Any:
        return await on_loop()

    @workflow
    def flow_on_thread() -> Any:
        return on_thread()

    assert engine.run(flow_on_loop if colour == "async" else flow_on_thread) == "attempt 5"
    assert all(wait >= least for wait, least in zip(bodies.waits, [0.05, 0.15, 0.2, 0.2], strict=True)), bodies.waits


def test_only_errors_that_the_policy_names_are_tried_again(engine: Engine) -> None:
    """``retry_on`` names the errors; any other is final at once. So is a result that does not fit its type."""
    other, unfit = Bodies(ConnectionError("a"), TypeError("b"), None), Bodies(None)

    @step(max_attempts=9, interval=0, retry_on=(ConnectionError, TimeoutError))
    async def picky() -> str:
        return other.body()

    @step(max_attempts=9, interval=0)
    async def mistyped() -> int:
        return unfit.body()  # type: ignore[return-value]

    @workflow
    async def flow() -> None:
        with pytest.raises(TypeError, match="b"):
            await picky()
        with pytest.raises(SerializationError, match="result of step 'mistyped'"):
            await mistyped()

    engine.run(flow)
    assert (len(other.began), len(unfit.began)) == (2, 1)


@pytest.mark.parametrize("colour", ["on_loop", "on_thread"])
def test_attempts_of_a_step_are_counted_across_owners(
    database_url: str, start_program: StartProgram, client: Engine, colour: str
) -> None:
    """Two owners die in the middle of attempts.

    What failed before counts, what died on its way does not, and no two attempts share a name.
    """
    workers = [start_program("worker", module="retrying", queues=["q"]) for _ in range(3)]
    flow: Any = getattr(retrying, f"retrying_{colour}")
    handle = client.start(flow.options(workflow_id="w", queue="q"), [3, 5])
    assert handle.result(timeout=PATIENCE) == "body 6"
    assert sum(worker.running for worker in workers) == 1
    assert ledger() == ["body"] * 6, "4 failures, and 2 that took their process with them"
    query = "SELECT kind, attempt, error ->> 'message' FROM dbosflow.step WHERE workflow_id = 'w' ORDER BY seq"
    assert rows(database_url, query) == [
        ("attempt", "1.1", "body 1"),
        ("attempt", "1.2", "body 2"),
        ("attempt", "3.1", "body 4"),
        ("step", "5.1", "body 6"),
    ]
    assert disorder(database_url) == []


@pytest.mark.parametrize(
    ("options", "named"),
    [({"max_attempts": 0}, "max_attempts=0"), ({"interval": -1}, "interval"), ({"backoff": 0.5}, "backoff=0.5")],
)
def test_a_retry_policy_with_senseless_values_is_refused(options: dict[str, Any], named: str) -> None:
    """Where it is written, not where it would first matter."""
    with pytest.raises(ConfigurationError, match=named):
        step(**options)
