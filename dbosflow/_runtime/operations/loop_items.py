"""The attempts of a loop's handler at one item, and what comes of them: see ``for_each``."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from dbosflow._records.keys import item_key
from dbosflow._runtime.operations.retrying import Attempts, warn_of_failure
from dbosflow._runtime.runs.entries import LoopItem, Record

if TYPE_CHECKING:
    from dbosflow._runtime.execution.run import RunBranch
    from dbosflow.definitions import StepDef


class LoopPort(Protocol):
    """What the attempts at an item ask of their loop."""

    pauses: dict[object, float]
    """When the pauses between attempts at items are over, by ``time.monotonic``."""

    async def original(self, offset: int, value: Any) -> str | None:
        """The JSON of an item for its dead letter, if it is to have one."""

    def finish(self, offset: int, finished: Finished) -> None:
        """Takes an item's outcome."""


class ItemAttempts(Attempts):
    """The attempts of a loop's handler at one item: their records wait for no turn."""

    __slots__ = ("_item", "_loop")

    def __init__(self, branch: RunBranch, handler: StepDef, loop: LoopPort, item: tuple[str, int, Any]) -> None:
        key, offset, _ = item
        super().__init__(branch.run.loop_driver, branch, item_key(key, offset), handler)
        self._loop, self._item = loop, item

    async def _conclude(self, record: Record, error: BaseException | None, failures: int) -> None:
        _, offset, value = self._item
        original = None
        if error is not None:
            warn_of_failure(self._run, self._key, self._step, failures, error)
            original = await self._loop.original(offset, value)
        self._is_under_way = False  # the loop counts it off
        self._loop.finish(offset, Finished(record, error, original))

    async def _commit_failure(self, record: Record) -> None:
        key, offset, _ = self._item
        record.loop_item = LoopItem(key, offset)
        durable = asyncio.get_running_loop().create_future()
        self._run.append_item(record, durable)
        await durable

    async def _pause(self, seconds: float) -> None:
        self._loop.pauses[self] = time.monotonic() + seconds
        try:
            await asyncio.sleep(max(seconds, 0))
        finally:
            del self._loop.pauses[self]


@dataclass(frozen=True, slots=True)
class Finished:
    """An item whose handler has returned or failed for good."""

    record: Record
    error: BaseException | None
    original: str | None
    """The item's JSON, if a dead letter is to contain it."""
