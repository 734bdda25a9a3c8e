"""A driver around another one, which gets every call that is not overridden."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from dbosflow._runtime.execution.drivers import Driver
    from dbosflow._runtime.execution.run import Run, StepAttempt
    from dbosflow._runtime.runs.durable_waits import DurableWait
    from dbosflow._runtime.runs.entries import Ending, Record, Waiter
    from dbosflow._store.workflow import Outcome
    from dbosflow.definitions import FunctionDef

T = TypeVar("T")


class WrappedDriver:
    """A driver that leaves everything to another one. ``DriverPort`` documents the methods."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def commit(self, run: Run, record: Record) -> None:
        """Delegates to the other driver."""
        await self._driver.commit(run, record)

    async def hand_on(self, run: Run, record: Record) -> None:
        """Delegates to the other driver."""
        await self._driver.hand_on(run, record)

    def new_waiter(self) -> Waiter:
        """Delegates to the other driver."""
        return self._driver.new_waiter()

    async def delivered(self, waiter: Waiter) -> None:
        """Delegates to the other driver."""
        await self._driver.delivered(waiter)

    def on_loop(self, callback: Callable[[], object]) -> None:
        """Delegates to the other driver."""
        self._driver.on_loop(callback)

    async def turn_of(self, run: Run, key: str) -> None:
        """Delegates to the other driver."""
        await self._driver.turn_of(run, key)

    async def catch_up(self, run: Run, key: str) -> None:
        """Delegates to the other driver."""
        await self._driver.catch_up(run, key)

    async def await_cancellation(self, run: Run, key: str) -> None:
        """Delegates to the other driver."""
        await self._driver.await_cancellation(run, key)

    async def record_cancellation(self, run: Run, key: str) -> None:
        """Delegates to the other driver."""
        await self._driver.record_cancellation(run, key)

    async def call(
        self, attempt: StepAttempt, function: FunctionDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """Delegates to the other driver."""
        return await self._driver.call(attempt, function, args, kwargs)

    async def outcome(self, run: Run, workflow_id: str) -> Ending | Outcome:
        """Delegates to the other driver."""
        return await self._driver.outcome(run, workflow_id)

    async def wait(
        self, run: Run, work: Coroutine[Any, Any, T], *, awaits: str | None = None, wait: DurableWait | None = None
    ) -> T:
        """Delegates to the other driver."""
        return await self._driver.wait(run, work, awaits=awaits, wait=wait)

    async def pause(self, run: Run, seconds: float) -> None:
        """Delegates to the other driver."""
        await self._driver.pause(run, seconds)

    async def hold(self, run: Run) -> None:
        """Delegates to the other driver."""
        await self._driver.hold(run)

    async def room(self, run: Run) -> bool:
        """Delegates to the other driver."""
        return await self._driver.room(run)

    async def durable(self, run: Run) -> None:
        """Delegates to the other driver."""
        await self._driver.durable(run)
