"""Durable `for_each` loops: a step for each item of a stream; the loop is one operation of its branch.

The program sees only the outcome of the whole loop, so nothing in between has to be replayed: the reads are not on
record, and a later run begins at the watermark of the records.

```text
page ──► item ──► attempts of the handler ──► its record, which carries the watermark ──► durable: room for another
                      └── failed for good ──► raise: the loop ends │ skip │ dead letter, in the record's statement
```

The *watermark* is the offset before which every item is done. A record with a greater watermark supersedes all below
it: a history, like the memory, holds the items from there on, and never more than are begun at a time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import OrderedDict
from contextvars import copy_context
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dbosflow import serde
from dbosflow._records.keys import item_key
from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.execution.scope import set_scope
from dbosflow._runtime.operations.for_each_settings import ForEachSettings, dead_letter_key
from dbosflow._runtime.operations.loop_items import Finished, ItemAttempts
from dbosflow._runtime.operations.loop_places import is_own_input, note_place, past_of
from dbosflow._runtime.operations.operation import DurableOperation
from dbosflow._runtime.operations.retrying import Caller, is_outcome, running_task
from dbosflow._runtime.operations.steps import failure_again
from dbosflow._runtime.process.exits import Contained
from dbosflow._runtime.runs.durable_waits import DurableWait, Standing
from dbosflow._runtime.runs.entries import LoopItem, Record
from dbosflow._runtime.runs.offsets import Offsets
from dbosflow._store.carried import ReadPlace
from dbosflow.errors import DbosflowError, SerializationError
from dbosflow.failures import brief_error, dump_error

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from dbosflow._runtime.execution.run import RunBranch
    from dbosflow._runtime.streams.cursor import StreamCursor
    from dbosflow._runtime.streams.position import ReadRequest
    from dbosflow.definitions import StepDef

logger = logging.getLogger("dbosflow.steps")

_AHEAD = 1024
"""How many items may be done behind one that is not."""


async def run_for_each(
    branch: RunBranch, request: ReadRequest, handler: StepDef, settings: ForEachSettings
) -> tuple[str, dict[str, Any], BaseException | None]:
    """Runs the loop, or takes its outcome from its record: the loop's key, its totals, and the error that ended it."""
    run = branch.run
    what = f"for_each({settings.name!r})"
    operation = DurableOperation(branch, RecordKind.FOR_EACH, settings.name, what)
    note_place(run, request, operation)
    async with operation:
        key, record = operation.key, operation.record
        ended_by: BaseException | None = None

        async def live() -> Record:
            nonlocal ended_by
            loop, began = ForEach(branch, key, request, handler, settings), time.monotonic()
            caller = Caller(running_task())
            if is_own_input(run, request):
                run.read_places[request.key] = loop.place
            error = None
            try:
                wait = DurableWait(loop.standing)
                await operation.driver.wait(run, loop.run(), awaits=request.workflow_id, wait=wait)
            except BaseException as failure:  # the handler's or the stream's: the loop's outcome
                if not is_outcome(failure, caller):
                    raise
                ended_by, error = failure, dump_error(failure)
            output, elapsed = json.dumps(loop.totals), time.monotonic() - began
            return Record(key, RecordKind.FOR_EACH, output=output, error=error, elapsed=elapsed)

        found = await operation.outcome(live)
        failed = None
        if found.error is not None:
            failed = failure_again(run, found.error, f"key {key!r}", record, live=ended_by)
        return key, json.loads(found.output or "{}"), failed


class ForEach:
    """One pass over a stream, from the watermark on. Lives on the engine's event loop."""

    def __init__(
        self, branch: RunBranch, key: str, request: ReadRequest, handler: StepDef, settings: ForEachSettings
    ) -> None:
        run = branch.run
        self._branch = branch
        self._run = run
        self._key = key
        self._handler = handler
        self._codec = request.codec
        self._settings = settings
        self._history = history = past_of(run, key, request)
        assert isinstance(request.start, int)
        self._next = max(request.start, history.next)
        self._recorded = Offsets(ReadPlace(self._next, tuple(history.finished)))
        self._cursor: StreamCursor = run.engine.cursor(replace(request, start=self._next))
        self._done, self._failed, self._last = history.done, history.failed, history.last
        self._begun: OrderedDict[int, Finished | bool] = OrderedDict()
        """The items from the watermark on, in the order of the stream: finished and not on record, or whether done."""
        self._under_way = 0
        self._not_durable = 0
        self._room = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_full = False
        """Whether the loop takes no further item before others are done."""
        self.pauses: dict[object, float] = {}
        """When the pauses between attempts at items are over, by ``time.monotonic``."""
        self._failure: asyncio.Future[None]

    @property
    def totals(self) -> dict[str, Any]:
        """How many items the loop has handled, how many failed, and its offset."""
        return {"count": self._done, "failed": self._failed, "last": self._last, "next": self._next}

    def place(self) -> ReadPlace:
        """How far the loop has come, by its records."""
        return self._recorded.place()

    def standing(self) -> Standing | str:
        """What the loop waits for, if for nothing but the stream and the next attempts at items."""
        if self._not_durable or self._under_way != len(self.pauses):
            return f"an item of loop {self._key!r}"
        following = Standing() if self._is_full else self._cursor.standing()
        if isinstance(following, str):
            return following
        if following.until is not None:
            return f"the timeout of loop {self._key!r}"
        return following._replace(due=min(self.pauses.values(), default=None))

    async def run(self) -> None:
        """Handles each item, until the stream ends or a failure ends the loop."""
        self._failure = asyncio.get_running_loop().create_future()
        feeding = self._task(self._feed())
        try:
            await asyncio.wait({feeding, self._failure}, return_when=asyncio.FIRST_COMPLETED)
            if self._failure.done():
                self._failure.result()
            await feeding
        finally:
            tasks = {feeding, *self._tasks}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._failure.cancel()
            for state in self._begun.values():
                if isinstance(state, Finished):  # behind the item that has ended the loop: never recorded
                    self._run.body_ended()

    async def _feed(self) -> None:
        try:
            while not self._cursor.over:
                try:
                    item = self._cursor.take()
                except SerializationError as unfit:
                    self._check_new(unfit)
                    if self._settings.on_error == "raise":
                        raise
                    await self._begin(self._cursor.offset, None, unfit)
                    self._cursor.pass_over()
                    continue
                if item is None:
                    if not self._cursor.over:
                        await self._cursor.next_page()
                elif item.rollback is None:
                    await self._begin(item.offset, item.value)
        except DbosflowError:
            await self._all_done()
            raise
        await self._all_done()
        outcome = self._cursor.outcome
        if outcome is not None and outcome.error is not None:
            raise outcome.error

    def _check_new(self, unfit: SerializationError) -> None:
        """Blocks the workflow if the next item was handled before, and so had the type that was expected then.

        A new item that is not of the type may be anything that was written: it fails, as if its handler had failed.
        """
        offset, history = self._cursor.offset, self._history
        if offset in history.failures or (offset in history.finished and offset not in history.unfit):
            asked = f"takes item {offset} of loop {self._key!r} for another type"
            raise self._run.disagree(asked, f"that it was handled ({unfit})") from unfit

    async def _all_done(self) -> None:
        self._is_full = True
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _begin(self, offset: int, value: Any, unfit: SerializationError | None = None) -> None:
        if offset in self._history.finished:
            self._history.finished.discard(offset)
            self._begun[offset] = True
            self._settle()
            return
        while not self._has_room:
            self._room.clear()
            self._is_full = True
            await self._room.wait()
            self._is_full = False
        self._begun[offset] = False
        self._under_way += 1
        task = self._task(self._handle(offset, value) if unfit is None else self._refuse(offset, unfit))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    @property
    def _has_room(self) -> bool:
        settings = self._settings
        waiting = max(self._not_durable - settings.checkpoint_every + 1, 0)
        return self._under_way + waiting < settings.concurrency and len(self._begun) < _AHEAD + settings.concurrency

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if not self._failure.done():
            self._failure.set_exception(error)

    # -- an item -----------------------------------------------------------------------------------------------------

    async def _handle(self, offset: int, value: Any) -> None:
        past = self._history.failures.pop(offset, ())
        attempts = ItemAttempts(self._branch, self._handler, self, (self._key, offset, value))
        await attempts.until_final(past, (value,), {})

    async def _refuse(self, offset: int, unfit: SerializationError) -> None:
        """Records the failure, without an attempt, of an item that is not of the handler's type."""
        run, key = self._run, item_key(self._key, offset)
        logger.warning("item %s of workflow %s is not handled: %s", key, run.workflow_id, unfit)
        record = Record(key, RecordKind.STEP, error=dump_error(unfit))
        finished = Finished(record, unfit, await self.original(offset, None))
        run.body_begins()  # until the failure is recorded, as for any item
        self.finish(offset, finished)

    async def original(self, offset: int, value: Any) -> str | None:
        """The JSON of an item for its dead letter: as stored in the stream, whatever the handler has made of it."""
        if self._settings.on_error != "dead_letter":
            return None
        text = await self._cursor.text_at(offset)
        if text is None:  # trimmed meanwhile
            return (
                self._codec.written([value])[1:-1]
                if isinstance(self._codec, serde.Codec)
                else serde.plain.written(value)
            )
        return text

    def finish(self, offset: int, finished: Finished) -> None:
        """Takes an item's outcome: it goes on record now, or once those before it have."""
        if self._settings.ordered:
            self._begun[offset] = finished
        elif self._ends_the_loop(finished):  # so the item is not done, whatever else still gets on record
            self._record(offset, finished, self._next)
        else:
            before = self._next
            self._begun[offset] = True
            self._settle()
            try:
                self._record(offset, finished, self._next)
            except BaseException:
                self._next = before
                raise
        self._settle()

    def _ends_the_loop(self, finished: Finished) -> bool:
        return finished.error is not None and self._settings.on_error == "raise"

    def _settle(self) -> None:
        """Records the outcomes that may be recorded now, and raises the watermark over them."""
        while self._begun and not self._failure.done():
            offset, state = next(iter(self._begun.items()))
            if state is False:
                return
            if isinstance(state, Finished):
                self._begun[offset] = False  # until it is recorded, which may never happen
                self._record(offset, state, offset + 1)
                if self._ends_the_loop(state):
                    return
            self._next = offset + 1
            del self._begun[offset]
            self._room.set()

    def _record(self, offset: int, finished: Finished, watermark: int) -> None:
        run, record, error = self._run, finished.record, finished.error
        self._under_way -= 1
        self._room.set()
        if error is not None and self._ends_the_loop(finished):
            run.body_ended()
            self._fail(failure_again(run, record.error or "{}", f"key {record.key!r}", live=error))
            return
        record.loop_item = LoopItem(self._key, offset, watermark)
        dead_letter = None
        if error is not None and self._settings.on_error == "dead_letter":
            brief = brief_error(record.error or "{}")
            text = f'{{"offset":{offset},"value":{finished.original},"error":{brief}}}'
            dead_letter = (dead_letter_key(self._settings.name), text)
        durable = asyncio.get_running_loop().create_future()
        self._not_durable += 1
        durable.add_done_callback(self._is_durable)
        try:
            run.append_item(record, durable, dead_letter)
        except BaseException as refused:  # the stream for dead letters is closed or full, or the run is over
            durable.cancel()
            self._fail(refused)  # at once: nothing else begins or gets on record behind it
            raise
        self._failed += error is not None
        self._done += error is None
        self._last = max(offset, self._last or 0)
        self._recorded.add(offset)

    def _is_durable(self, durable: asyncio.Future[None]) -> None:
        if not durable.cancelled():
            durable.exception()  # the run is over, and its waiters are notified
        self._not_durable -= 1
        self._run.body_ended()
        self._room.set()

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Makes a task that is no branch of the workflow."""
        context = copy_context()
        context.run(set_scope, None)
        return asyncio.get_running_loop().create_task(Contained(work), context=context)
