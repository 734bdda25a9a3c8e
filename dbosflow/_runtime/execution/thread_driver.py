"""The driver of code on the thread of a sync workflow (see ``drivers``)."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from dbosflow._records.keys import GIVEN_UP, shown
from dbosflow._runtime.execution.isolation import awaited, body_of, context_of, in_time, is_awaitable
from dbosflow._runtime.process.thread_pool import Place, ThreadPool
from dbosflow._runtime.process.threads import ThreadWaiter
from dbosflow._runtime.runs.durable_waits import DurableWait, Standing, elsewhere, pause_of
from dbosflow._store.waiter import Target
from dbosflow.errors import ThreadLimitError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from dbosflow._runtime.execution.run import Run, StepAttempt
    from dbosflow._runtime.runs.entries import Ending, Record, Waiter
    from dbosflow._store.workflow import Outcome
    from dbosflow.definitions import FunctionDef

T = TypeVar("T")


class ThreadDriver:
    """Code on the thread of a sync workflow. Its steps run on that thread; engine work runs on the loop meanwhile."""

    def __init__(self, loop: asyncio.AbstractEventLoop, threads: ThreadPool) -> None:
        self._loop = loop
        self._threads = threads

    async def commit(self, run: Run, record: Record) -> None:
        """Buffers a record and waits until it is durable."""
        record.waiter = waiter = ThreadWaiter()
        run.append(record)
        self._end_opening(run)
        waiter.wait()

    def _end_opening(self, run: Run) -> None:
        opening = run.opening  # the loop may set it to None meanwhile
        if opening is not None:
            self.on_loop(opening.end)

    async def hand_on(self, run: Run, record: Record) -> None:
        """Buffers the record of a relaxed step, and goes on."""
        if run.buffer.may_run_ahead:
            record.ends_turn = True
            run.append_ahead(record)
        else:
            await self.commit(run, record)

    def new_waiter(self) -> Waiter:
        """What a thread waits on."""
        return ThreadWaiter()

    async def delivered(self, waiter: Waiter) -> None:
        """Waits until a record that was written on another connection is durable."""
        assert isinstance(waiter, ThreadWaiter)
        waiter.wait()

    def on_loop(self, callback: Callable[[], object]) -> None:
        """Has the loop call ``callback`` soon."""
        self._loop.call_soon_threadsafe(callback)

    async def turn_of(self, run: Run, key: str) -> None:
        """Returns at once: a thread is the only branch of its run."""
        run.note_replayed(key)

    async def catch_up(self, run: Run, key: str) -> None:
        """Reports what is left on record as a contradiction: a thread is the only branch of its run."""
        run.check_all_asked(f"asks for {key!r}, which is not on record")
        run.replay_is_over()

    async def await_cancellation(self, run: Run, key: str) -> None:
        """Reports a contradiction: nothing cancels an operation of a thread, so the record is of an async body."""
        raise run.disagree(f"cannot give {key!r} up", shown(key + GIVEN_UP), key + GIVEN_UP)

    async def record_cancellation(self, run: Run, key: str) -> None:
        """Does nothing, since nothing cancels an operation of a thread."""

    async def call(
        self, attempt: StepAttempt, function: FunctionDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """Calls the user's function here; an async function, or an awaitable result, is awaited on the loop."""
        attempt.place = Place(self._threads)
        context = context_of(attempt)
        if function.is_async:
            rest = body_of(function, args, kwargs)
        else:
            value = context.run(function.function, *args, **kwargs)
            if not is_awaitable(value):
                return value
            rest = awaited(value)
        rest = in_time(attempt, function, rest)
        call = context.run(asyncio.run_coroutine_threadsafe, rest, self._loop)
        with attempt.run.cancelling(call):
            return call.result()

    async def outcome(self, run: Run, workflow_id: str) -> Ending | Outcome:
        """Waits for the end of another workflow; ``ThreadLimitError`` if the most threads allowed wait already."""
        wait = DurableWait(Standing((Target(workflow_id),)))
        return await self.wait(run, run.engine.outcome(workflow_id, ended=True), awaits=workflow_id, wait=wait)

    async def wait(
        self, run: Run, work: Coroutine[Any, Any, T], *, awaits: str | None = None, wait: DurableWait | None = None
    ) -> T:
        """Waits for work of the engine's on its loop; with ``awaits``, as ``outcome`` does."""
        if awaits is None:
            return self._wait(run, work)
        try:
            with self._threads.away(_named(run), awaits=awaits, at_the_limit="raise"):
                return self._wait_durably(run, work, wait or elsewhere())
        except ThreadLimitError:
            work.close()  # never begun
            raise

    def _wait(self, run: Run, work: Coroutine[Any, Any, T]) -> T:
        done = asyncio.run_coroutine_threadsafe(work, self._loop)
        with run.cancelling(done), run.giving_back():
            return done.result()

    def _wait_durably(self, run: Run, work: Coroutine[Any, Any, T], wait: DurableWait) -> T:
        run.begin_wait(wait)
        try:
            return self._wait(run, work)
        finally:
            run.end_wait(wait)

    async def pause(self, run: Run, seconds: float) -> None:
        """Waits; a stop of the run ends the wait."""
        wait = pause_of(seconds)
        run.begin_wait(wait)
        try:
            with self._threads.away(_named(run), at_the_limit="stay"):
                run.environment.clock.wait(run.interrupted, seconds)
                run.check_goes_on()
        finally:
            run.end_wait(wait)

    async def hold(self, run: Run) -> None:
        """Waits; a stop or a cancel of the run ends the wait."""
        run.interrupted.wait()
        run.check_goes_on()

    async def room(self, run: Run) -> bool:
        """Waits until the run's buffer has room, up to ``buffer_timeout``; returns whether it has."""
        room = threading.Event()
        run.when_room(room.set)
        return room.wait(run.settings.buffer_timeout)

    async def durable(self, run: Run) -> None:
        """Waits until everything that the run has buffered is durable."""
        durable = ThreadWaiter()
        run.add_barrier(durable)
        self._end_opening(run)
        durable.wait()


def _named(run: Run) -> str:
    return f"workflow {run.workflow_id!r}"
