"""A workflow for each item, so many at a time: one operation of its branch.

The program sees only the outcome of the whole operation, so the starts and results in between have no turns. They are
on record under the operation's key: what has ended, then what begins in its place, in one statement each round.

```text
started (its row and its record in one statement) ──► ended ──► result on record ──► all ended ──► outcome on record
                                                        └── failed: on record, then the others are cancelled ──┘
```

The bodies of a round begin before their rows are there, if they may: one that ends in its opening is started and ended.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from dbosflow._records.keys import ENDED, child_id, item_key
from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.execution.recorded_values import failure, load
from dbosflow._runtime.operations.child_starts import ChildStart
from dbosflow._runtime.operations.children import check_foreign, failure_of
from dbosflow._runtime.operations.endings import Ended, Endings
from dbosflow._runtime.operations.operation import DurableOperation
from dbosflow._runtime.operations.recorded_queries import patiently
from dbosflow._runtime.runs.durable_waits import DurableWait, Standing
from dbosflow._runtime.runs.entries import Record
from dbosflow._store.waiter import Target
from dbosflow.errors import DeadlockError, ThreadLimitError, WorkflowFailedError
from dbosflow.failures import dump_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbosflow._runtime.execution.run import Run, RunBranch
    from dbosflow._runtime.runs.start_request import StartRequest
    from dbosflow._store.step import Recorded

_MOST_AWAITED = 1000
"""Children under way with which a run may leave memory: each is a row of what it waits for."""


async def map_workflow(
    branch: RunBranch, requests: Sequence[StartRequest], *, concurrency: int, collects_errors: bool
) -> list[Any]:
    """Runs a child for each request, and returns their results in order.

    The first failure cancels the others and is raised; or, if errors are collected, each stands in its result's place.
    """
    run, definition = branch.run, requests[0].definition
    what = f"map_workflow({definition.name}, ...)"
    async with DurableOperation(branch, RecordKind.MAP, definition.name, what) as operation:
        key = operation.key
        mapping = _Mapping(operation, requests, concurrency, collects_errors=collects_errors)

        async def live() -> Record:
            began, error = time.monotonic(), None
            mapping.check_arguments()
            run.check_may_follow(key)
            try:
                wait = DurableWait(mapping.standing)
                await operation.driver.wait(run, mapping.run(), awaits=run.workflow_id, wait=wait)
            except ThreadLimitError as refused:
                error = dump_error(refused)
            failed, elapsed = mapping.failed, time.monotonic() - began
            if failed is not None:
                error = mapping.results[failed][1]
            return Record(key, RecordKind.MAP, output=str(len(requests)), error=error, elapsed=elapsed)

        asked = f"maps workflow {definition.name!r} over {len(requests)} items at key {key!r}"
        behind = run.recorded(item_key(key, len(requests)))
        if behind is not None:
            raise run.disagree(asked, f"item {len(requests)} that has begun", behind)
        found = await operation.outcome(live)
        if found.output != str(len(requests)):
            raise run.disagree(asked, f"{found.output} items", operation.record)
        if found.error is not None:
            raise _failure(run, found.error, key, operation.record)
        return [_result(run, requests[0], mapping.results[place], key) for place in range(len(requests))]


def _result(run: Run, request: StartRequest, result: tuple[str | None, str | None], key: str) -> Any:
    output, error = result
    if error is None:
        return load(run, request.definition.result, output, f"key {key!r}")
    return _failure(run, error, key)


def _failure(run: Run, error: str, key: str, record: Recorded | None = None) -> BaseException:
    failed = failure(run, error, f"key {key!r}", record)
    return failed.exception or failed.noted(WorkflowFailedError(run.workflow_id, failed.type, failed.message))


class _Mapping:
    """One pass over the items. Lives on the engine's event loop."""

    def __init__(
        self, operation: DurableOperation, requests: Sequence[StartRequest], concurrency: int, *, collects_errors: bool
    ) -> None:
        run = self._run = operation.run
        self._operation, self._key, self._requests = operation, operation.key, requests
        self._concurrency, self._collects_errors = concurrency, collects_errors
        self.results: dict[int, tuple[str | None, str | None]] = {}
        """The output and error of each item whose child has ended, as JSON."""
        self.failed: int | None = None
        """The item whose failure ends the operation."""
        self._places: dict[str, int] = {}
        """The items under way, by their children's ids."""
        self._texts: dict[int, str] = {}
        """The arguments of the items that have not begun, as JSON."""
        self._endings = Endings()
        self._ended: list[Record] = []
        """The records of results that wait for what begins next."""
        self._awaited: set[str] = set()
        self._next = 0
        self._is_waiting = False
        first: int | None = None
        while self._next < len(requests) and (begun := run.recorded(item_key(self._key, self._next))) is not None:
            place, self._next = self._next, self._next + 1
            ended = run.recorded(item_key(self._key, place) + ENDED)
            if ended is None:
                self._places[str(begun.child_id)] = place
                continue
            self.results[place] = ended.output, ended.error
            if ended.error is not None and not collects_errors and (first is None or ended.seq < first):
                first, self.failed = ended.seq, place

    def check_arguments(self) -> None:
        """Raises if JSON cannot carry an item: before anything begins."""
        for place in range(self._next, len(self._requests)):
            self._texts[place] = self._requests[place].arguments_text()

    def standing(self) -> Standing | str:
        """What it waits for, or what keeps the run in memory."""
        if not self._is_waiting:
            return "children that are being started"
        if len(self._places) > _MOST_AWAITED:
            return f"more than {_MOST_AWAITED} children at a time"
        return Standing(tuple(map(Target, self._places)))

    async def run(self) -> None:
        """Starts and awaits children until all have ended, or one has failed."""
        try:
            for workflow_id, place in self._places.items():
                record = self._run.recorded(item_key(self._key, place))
                if record is not None and record.foreign is not None:
                    self._park(workflow_id, record.foreign)
            for workflow_id in tuple(self._places):
                self._await(workflow_id)
            while self.failed is None and len(self.results) < len(self._requests):
                await self._begin_more()
                if not self._places or self._has_room:  # some have ended in their openings
                    continue
                self._is_waiting = True
                ended = await self._endings.take()
                self._is_waiting = False
                for one in ended:
                    self._has_ended(one)
            self._record_results()
            if self.failed is not None:
                await self._cancel_others()
        finally:
            self._endings.close()
            for workflow_id in tuple(self._awaited):
                self._waits_no_more(workflow_id)

    @property
    def _has_room(self) -> bool:
        """Whether one more may begin."""
        return self._next < len(self._requests) and len(self._places) < self._concurrency

    async def _begin_more(self) -> None:
        """Starts as many as may run at a time, in one statement with the results of those that have ended."""
        starting: dict[int, ChildStart] = {}
        try:
            while self._has_room:
                place, self._next = self._next, self._next + 1
                child = starting[place] = self._start_of(place)
                self._places[child.child_id] = place
                if child.may_open():
                    child.open()
            for child in starting.values():
                await child.opened()
            self._record_results()
            if not starting:
                return
            for child in starting.values():
                self._run.append(child.record(RecordKind.MAPPED))
            await self._durable()
        finally:
            for child in starting.values():
                child.forget()
        for place, child in starting.items():
            if not child.is_new:
                await self._check_own(place, child.child_id)
            if child.ending is not None:
                self._has_ended(Ended(child.child_id, child.ending, None))
            else:
                self._await(child.child_id)

    def _start_of(self, place: int) -> ChildStart:
        key = item_key(self._key, place)
        child = child_id(self._run.workflow_id, key)
        return ChildStart(self._run, key, self._requests[place], child, self._texts.pop(place))

    async def _check_own(self, place: int, workflow_id: str) -> None:
        run, key = self._run, item_key(self._key, place)
        found = await run.engine.find_child(workflow_id, self._requests[place].definition)
        if found is not None and (found.parent_id, found.parent_key) != (run.workflow_id, key):
            self._park(workflow_id, found.name)

    def _park(self, workflow_id: str, foreign: str) -> None:
        check_foreign(self._operation, replace(self._requests[0], workflow_id=None), workflow_id, foreign)

    def _await(self, workflow_id: str) -> None:
        run = self._run
        try:
            run.engine.waits.begin(run.workflow_id, workflow_id)
        except DeadlockError as error:
            self._has_ended(Ended(workflow_id, None, error))
            return
        self._awaited.add(workflow_id)
        self._endings.add(workflow_id, run.engine.outcome(workflow_id, ended=True))

    def _waits_no_more(self, workflow_id: str) -> None:
        if workflow_id in self._awaited:
            self._awaited.remove(workflow_id)
            self._run.engine.waits.end(self._run.workflow_id, workflow_id)

    def _has_ended(self, one: Ended) -> None:
        """Makes the record of an item's result, which goes with what begins next."""
        workflow_id, outcome, error = one
        if error is not None and not isinstance(error, Exception):
            raise error
        place = self._places.pop(workflow_id)
        self._waits_no_more(workflow_id)
        failed = error if outcome is None else failure_of(workflow_id, outcome)
        text = None if failed is None else dump_error(failed)
        output = None if outcome is None or failed is not None else outcome.output
        self.results[place] = output, text
        key = item_key(self._key, place) + ENDED
        self._ended.append(Record(key, RecordKind.MAPPED_RESULT, child_id=workflow_id, output=output, error=text))
        if failed is not None and not self._collects_errors and self.failed is None:
            self.failed = place

    def _record_results(self) -> None:
        ended, self._ended = self._ended, []
        for record in ended:
            self._run.append(record)

    async def _cancel_others(self) -> None:
        """Cancels the children under way, once the failure, which is the first, is durable."""
        if not self._places:
            return
        await self._durable()
        reason = f"item {self.failed} of the same map_workflow has failed"
        for workflow_id in self._places:
            await patiently(partial(self._run.engine.cancel, workflow_id, True, reason))

    async def _durable(self) -> None:
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._run.add_barrier(durable)
        await durable
