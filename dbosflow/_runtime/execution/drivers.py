"""Drivers run the operations of a workflow: on the event loop, or on the thread of a sync workflow.

An operation is written once, as a coroutine that waits by a ``Driver``. The loop's driver awaits. A thread's driver
blocks, so the coroutine never suspends, and ``drive`` runs it to its end with a single ``send``.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from dbosflow._runtime.execution.isolation import awaited, body_of, context_of, in_time, is_awaitable, run_in
from dbosflow._runtime.execution.turn_share import SHARE, TurnShare
from dbosflow._runtime.process.thread_pool import Place, ThreadPool
from dbosflow._runtime.replay import cancellations
from dbosflow._runtime.runs.durable_waits import DurableWait, Standing, elsewhere, pause_of
from dbosflow._store.waiter import Target
from dbosflow.errors import ThreadLimitError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from dbosflow._runtime.execution.driver_port import DriverPort
    from dbosflow._runtime.execution.run import Run, StepAttempt
    from dbosflow._runtime.runs.entries import Ending, Record, Waiter
    from dbosflow._store.workflow import Outcome
    from dbosflow.definitions import FunctionDef

T = TypeVar("T")

Driver: TypeAlias = "DriverPort[Run, StepAttempt]"
"""A driver of the operations of a run."""

_NO_THREAD_PAUSE = 0.5
"""Seconds after which a step that got no thread asks for one again."""


def drive(operation: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine that never suspends."""
    try:
        operation.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    operation.close()
    msg = "an operation on a thread tried to suspend"
    raise AssertionError(msg)


def carried(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Calls ``function`` for a future, which cannot carry what ends a generator: that becomes a ``RuntimeError``."""
    try:
        return function(*args, **kwargs)
    except (StopIteration, GeneratorExit) as error:
        msg = f"function raised {type(error).__name__}"
        raise RuntimeError(msg) from error


class LoopDriver:
    """Code on the engine's event loop."""

    def __init__(self, step_threads: ThreadPool) -> None:
        self._loop = asyncio.get_running_loop()
        self._step_threads = step_threads
        self._share = TurnShare(self._loop)

    @property
    def _is_here(self) -> bool:
        """Whether the caller is on the engine's loop, and not on a loop that a sync step runs by itself."""
        return asyncio.get_running_loop() is self._loop

    async def commit(self, run: Run, record: Record) -> None:
        """Buffers a record and waits until it is durable and its turn has come."""
        record.waiter = self._loop.create_future()
        run.append(record)
        await record.waiter

    async def hand_on(self, run: Run, record: Record) -> None:
        """Buffers the record of a relaxed step, and goes on in its turn: at once in a run with one branch."""
        if not run.buffer.may_run_ahead:
            await self.commit(run, record)
            return
        record.ends_turn = True
        run.append_ahead(record)
        if run.sequencer is not None:
            await run.sequencer.hand_on()
            return
        if self._share.use() and (run.opening is None or run.buffer.ahead >= SHARE):  # which to yield would end
            await self._share.next()

    def new_waiter(self) -> Waiter:
        """A future of this loop."""
        return self._loop.create_future()

    async def delivered(self, waiter: Waiter) -> None:
        """Waits until a record that was written on another connection is durable and its turn has come."""
        assert isinstance(waiter, asyncio.Future)
        await waiter

    def on_loop(self, callback: Callable[[], object]) -> None:
        """Calls ``callback`` now: the caller is on the loop."""
        callback()

    async def turn_of(self, run: Run, key: str) -> None:
        """Waits until the turn of the record under ``key`` has come: at once in a run with one branch."""
        if run.sequencer is None:
            run.note_replayed(key)
        else:
            with run.sequencer.suspended():
                await cancellations.wait_for_turn(run, run.sequencer, key)

    async def catch_up(self, run: Run, key: str) -> None:
        """Waits for the last recorded turn; with one branch, what is left on record contradicts at once."""
        sequencer = run.sequencer
        if sequencer is None:
            run.check_all_asked(f"asks for {key!r}, which is not on record")
            run.replay_is_over()
            return
        with sequencer.suspended():
            await sequencer.caught_up()
        sequencer.withheld.raise_kept()

    async def await_cancellation(self, run: Run, key: str) -> None:
        """Waits for the cancellation that the live run got at this operation, and then for its turn."""
        run.check_may_begin()
        await cancellations.cancelled_again(run, key)

    async def record_cancellation(self, run: Run, key: str) -> None:
        """Commits the record that an operation was cancelled; further cancellations wait for the commit."""
        await cancellations.record_cancellation(run, key)

    async def call(
        self, attempt: StepAttempt, function: FunctionDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """Calls the user's function; a sync one in the pool for steps. An awaitable result is awaited here."""
        context = context_of(attempt)
        if function.is_async:
            return await run_in(context, in_time(attempt, function, body_of(function, args, kwargs)))
        attempt.place = Place(self._step_threads)
        value = await self._on_thread(partial(context.run, carried, function.function, *args, **kwargs))
        attempt.place = None
        return await run_in(context, in_time(attempt, function, awaited(value))) if is_awaitable(value) else value

    async def _on_thread(self, call: Callable[[], T]) -> T:
        """Makes the call in the pool for steps. A system that starts no thread for it now is no outcome of the step."""
        begun = False

        def begin() -> T:
            nonlocal begun
            begun = True
            return call()

        while True:
            try:
                return await asyncio.get_running_loop().run_in_executor(self._step_threads, begin)
            except ThreadLimitError:
                if begun:
                    raise
                await asyncio.sleep(_NO_THREAD_PAUSE)

    async def outcome(self, run: Run, workflow_id: str) -> Ending | Outcome:
        """Waits for the end of another workflow."""
        wait = DurableWait(Standing((Target(workflow_id),)))
        return await self.wait(run, run.engine.outcome(workflow_id, ended=True), awaits=workflow_id, wait=wait)

    async def wait(
        self, run: Run, work: Coroutine[Any, Any, T], *, awaits: str | None = None, wait: DurableWait | None = None
    ) -> T:
        """Waits for work of the engine's, in this task."""
        if not self._is_here:
            return await asyncio.to_thread(drive, run.thread_driver.wait(run, work))
        if awaits is None:
            with run.giving_back():
                return await work
        wait = wait or elsewhere()
        run.begin_wait(wait)
        try:
            with run.giving_back():
                return await work
        finally:
            run.end_wait(wait)

    async def pause(self, run: Run, seconds: float) -> None:
        """Sleeps; a run that stops cancels its tasks."""
        wait = pause_of(seconds)
        run.begin_wait(wait)
        try:
            await run.environment.clock.pause(seconds)
        finally:
            run.end_wait(wait)

    async def hold(self, run: Run) -> None:
        """Waits; a run that stops, or is cancelled, cancels its tasks.

        A cancellation by a timer or a sibling is ignored: what the body made of it would be durable, and on no record.
        """
        while True:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                if run.ending:
                    raise
                run.check_may_begin()

    async def room(self, run: Run) -> bool:
        """Waits until the run's buffer has room, up to ``buffer_timeout``; returns whether it has."""
        if not self._is_here:
            return await asyncio.to_thread(drive, run.thread_driver.room(run))
        room = asyncio.Event()
        run.when_room(room.set)
        try:
            async with asyncio.timeout(run.settings.buffer_timeout):
                await room.wait()
        except TimeoutError:
            return False
        return True

    async def durable(self, run: Run) -> None:
        """Waits until everything that the run has buffered is durable."""
        if not self._is_here:
            await asyncio.to_thread(drive, run.thread_driver.durable(run))
            return
        durable = asyncio.get_running_loop().create_future()
        run.add_barrier(durable)
        await durable
