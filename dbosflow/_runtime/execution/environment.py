"""What all runs of one engine share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from dbosflow._runtime.process.clock import CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow._runtime.execution.driver_port import DriverPort
    from dbosflow._runtime.execution.engine_port import EnginePort
    from dbosflow._runtime.execution.transaction_port import TransactionsPort
    from dbosflow._runtime.process.clock import Clock
    from dbosflow._runtime.replay.branch import RunningCode
    from dbosflow._runtime.runs.checksums import Repeated
    from dbosflow.config import Settings


R = TypeVar("R")
A = TypeVar("A")


class LeasePort(Protocol):
    """What runs ask of their worker's lease."""

    @property
    def in_time(self) -> bool:
        """Whether the worker certainly still has the lease."""


@dataclass(frozen=True, slots=True)
class RunEnvironment(Generic[R, A]):
    """What all runs (``R``) of one engine share, and the attempts (``A``) of their steps."""

    lease: LeasePort
    settings: Settings
    submit: Callable[[R], None]
    """Notifies the journal that a run has pending entries."""
    loop_driver: DriverPort[R, A]
    thread_driver: DriverPort[R, A]
    engine: EnginePort
    running_code: RunningCode
    transactions: TransactionsPort | None = None
    """Begins and commits users' transactions; ``None`` in a replay, which begins nothing."""
    loop_ends: Callable[[], bool] = lambda: False
    """Whether the loop ends under the open engine: ``asyncio.run`` cancels all tasks then, and nothing is written."""
    on_back_pressure: Callable[[str], None] = lambda _: None
    """Called with the id of a workflow whose writer waits for room."""
    on_waiting: Callable[[R], None] = lambda _: None
    """Called with each run when an operation of it waits durably for the first time."""
    on_skipped: Callable[[R, str, str, int, str], None] = lambda *_: None
    """Called for each value that a replay does not write again: stream key, producer, its count before, the value."""
    on_drawn: Callable[[R, str, str], str] = lambda _run, _key, text: text
    """Called with each new draw of a body, as JSON; returns the one that is used, which a test may choose."""
    on_changed: Callable[[R, Repeated], None] = lambda *_: None
    """Called when what a replay has written again for a producer differs from the record; may raise."""
    has_ended: bool = False
    """Whether the runs are replays of workflows that have ended: nothing new of them goes on record."""
    clock: Clock = CLOCK
