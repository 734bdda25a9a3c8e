"""Runs, records and attempts made by hand, for specs of single modules: no database, no engine, no journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbosflow._runtime.execution.environment import RunEnvironment
from dbosflow._runtime.execution.launch import Launch
from dbosflow._runtime.execution.run import Run
from dbosflow._runtime.replay.branch import RunningCode
from dbosflow._runtime.runs.producers import Attempt, Producer
from dbosflow._store.step import NO_HISTORY, History, Recorded
from dbosflow.config import Settings
from dbosflow.definitions import WorkflowDef

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dbosflow._runtime.runs.checksums import Repeated

BODY = Producer("")


def recorded(key: str, kind: str = "step", *, seq: int = 0, turn: int = 0, error: str | None = None) -> Recorded:
    """A durable record, with what a replay goes by."""
    return Recorded(key, kind, seq, turn, None, None, error, None, None, 0.0)


def history(*records: Recorded, **rest: Any) -> History:
    """A history of these records, in which failed attempts are listed by step, as they are when one is read."""
    failures: dict[str, list[Recorded]] = {}
    for record in records:
        if record.kind == "attempt":
            failures.setdefault(record.key.rpartition("@")[0], []).append(record)
    return History(records={record.key: record for record in records}, failures=failures, **rest)


def attempt(step_key: str, name: str = "1.0") -> Producer:
    """An attempt of a step, under way."""
    return Producer(f"{step_key}@{name}", name, Attempt(step_key, name))


def shared(step_key: str, under_way: str = "1.0") -> Producer:
    """What all attempts of a step write together, such as a response that each goes on with."""
    return Producer(f"{step_key}@*", "*", Attempt(step_key, under_way))


class Calls:
    """The calls that a run has made to its surroundings."""

    def __init__(self) -> None:
        self.submitted = 0
        self.back_pressure: list[str] = []
        self.skipped: list[tuple[str, str, int, str]] = []
        self.changed: list[Repeated] = []

    def submit(self, _: Run) -> None:
        """The run has pending entries."""
        self.submitted += 1

    def skip(self, _: Run, *value: Any) -> None:
        """The run has written a value that is durable."""
        self.skipped.append(value)

    def change(self, _: Run, repeated: Repeated) -> None:
        """The run has written other values than are durable."""
        self.changed.append(repeated)


async def _async_body() -> None:
    pass


def _sync_body() -> None:
    pass


def make_run(
    past: History = NO_HISTORY,
    *,
    calls: Calls | None = None,
    inputs: Iterable[str] = (),
    is_async: bool = False,
    **settings: Any,
) -> Run:
    """A run of the workflow ``wf`` in its first epoch, whose environment is ``calls``."""
    calls = calls or Calls()
    nothing: Any = None
    environment = RunEnvironment(
        nothing,
        Settings(**settings),
        calls.submit,
        *(nothing, nothing, nothing),
        RunningCode(),
        on_back_pressure=calls.back_pressure.append,
        on_skipped=calls.skip,
        on_changed=calls.change,
    )
    definition = WorkflowDef(_async_body if is_async else _sync_body, "hand-made")
    return Run(environment, Launch("wf", definition, "{}", inputs), past)
