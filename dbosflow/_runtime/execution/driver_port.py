"""What an operation asks of a driver: how to wait. Runs (``R``) and attempts (``A``) stay abstract here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from dbosflow._runtime.runs.durable_waits import DurableWait
    from dbosflow._runtime.runs.entries import Ending, Record, Waiter
    from dbosflow._store.workflow import Outcome
    from dbosflow.definitions import FunctionDef

T = TypeVar("T")
R_contra = TypeVar("R_contra", contravariant=True)
A_contra = TypeVar("A_contra", contravariant=True)


class DriverPort(Protocol[R_contra, A_contra]):
    """How an operation waits, and how it calls a user's function, in sync or in async code."""

    async def commit(self, run: R_contra, record: Record) -> None:
        """Buffers a record and waits until it is durable and its turn has come."""

    async def hand_on(self, run: R_contra, record: Record) -> None:
        """Buffers the record of a relaxed step and goes on in its turn, durable or not; else as ``commit``."""

    def new_waiter(self) -> Waiter:
        """What the operation waits on for a record that is written on another connection."""

    async def delivered(self, waiter: Waiter) -> None:
        """Waits until such a record is durable and its turn has come."""

    def on_loop(self, callback: Callable[[], object]) -> None:
        """Calls ``callback`` on the engine's loop, now or soon."""

    async def turn_of(self, run: R_contra, key: str) -> None:
        """Waits until the turn of the record under ``key`` has come."""

    async def catch_up(self, run: R_contra, key: str) -> None:
        """Waits until everything on record is delivered: the operation of ``key`` is new, and begins only then."""

    async def await_cancellation(self, run: R_contra, key: str) -> None:
        """Waits for the cancellation that the records hold for the operation of ``key``."""

    async def record_cancellation(self, run: R_contra, key: str) -> None:
        """Records that the program has cancelled the operation of ``key``, before it goes on."""

    async def call(
        self, attempt: A_contra, function: FunctionDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """Calls the user's function in the scope of ``attempt``."""

    async def outcome(self, run: R_contra, workflow_id: str) -> Ending | Outcome:
        """Waits for the end of another workflow."""

    async def wait(
        self, run: R_contra, work: Coroutine[Any, Any, T], *, awaits: str | None = None, wait: DurableWait | None = None
    ) -> T:
        """Waits for work of the engine's on the engine's loop.

        ``awaits`` is the workflow that the work waits for. Then the wait is a durable one: ``wait``, if given.
        """

    async def pause(self, run: R_contra, seconds: float) -> None:
        """Waits; ends early if the run stops."""

    async def hold(self, run: R_contra) -> None:
        """Waits until the run stops or is cancelled: the engine is closing, and nothing begins any more."""

    async def room(self, run: R_contra) -> bool:
        """Waits until the run's buffer has room, up to ``buffer_timeout``; returns whether it has."""

    async def durable(self, run: R_contra) -> None:
        """Waits until everything that the run has buffered is durable."""
