"""Appends to streams from outside of their workflow: many values in one statement, over the pool. Needs no lease.

```text
write ──► block in memory ──► append ──► its offset: the writer gets it, readers wake
              ▲                 ├── another writer was faster ──► again, with the tail that it left
              │                 ├── connection lost ──► again; what was committed all the same is found by its producer
              └─────────────────┤
                                ├── above a limit ──► a typed error for what does not fit, and the rest again
                                └── no such workflow, no input, ended ──► a typed error
```

Waiting values go together: those of one stream in the order in which they were written, as one block where possible. A
block has a producer of its own, the idempotency key or a unique id, and exists at most once for that producer. The
subclasses say what is written to: declared inputs, or inboxes.
"""

from __future__ import annotations

import asyncio
import random
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import psycopg

from dbosflow._records.producers import SURE, is_unsure, unique_outsider
from dbosflow._runtime.process.service import Service, set_closed
from dbosflow._store.notify import stream_topic
from dbosflow._store.queries import is_refused
from dbosflow.errors import DatabaseUnavailableError, PermissionDeniedError, SerializationError
from dbosflow.serde import size_of
from dbosflow.types import FrameKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from psycopg import AsyncConnection
    from psycopg_pool import AsyncConnectionPool

    from dbosflow.config import Settings


_FIRST_PAUSE = 0.001
"""Seconds, doubled at each lost race for an offset in a stream: about the time of the statement that won."""
_LONGEST_PAUSE = 0.05
"""Seconds: the writers wait for it, and the races are short however many take part."""

StreamKey = tuple[str, str]
"""Workflow id and key."""


class AppendResult(Protocol):
    """What the statement says of one block."""

    @property
    def offset(self) -> int | None:
        """The block's offset. If there is none, and no other field explains it, another writer was faster."""

    @property
    def ended(self) -> bool:
        """Whether nothing can be written any more."""

    @property
    def differs(self) -> bool:
        """Whether the producer had already written something else there."""

    @property
    def full(self) -> bool:
        """Whether nothing was written to the stream, because all of it would exceed a limit."""


R = TypeVar("R", bound=AppendResult)


@dataclass(slots=True, eq=False)
class PendingBlock:
    """Consecutive values, or the end of the stream, and the waiters of each."""

    producer: str
    kind: FrameKind = FrameKind.VALUES
    open: bool = True
    """Whether more values may join the block: until it is first sent, since it may be durable from then on."""
    texts: list[str] = field(default_factory=list)
    futures: list[asyncio.Future[int]] = field(default_factory=list)
    size: int = 0

    @property
    def values(self) -> str | None:
        """The block's values as a JSON array."""
        return f"[{','.join(self.texts)}]" if self.kind is FrameKind.VALUES else None

    @property
    def count(self) -> int:
        """How many frames the block has."""
        return max(len(self.texts), 1)

    def split(self) -> list[PendingBlock]:
        """Splits a refused block, nothing of which is stored, into one for each value."""
        pairs = zip(self.texts, self.futures, strict=True)
        return [PendingBlock(unique_outsider(), open=False, texts=[text], futures=[one]) for text, one in pairs]

    def refuse(self, refusal: Callable[[str], Exception | None]) -> None:
        """Asks for each value in turn whether it is refused, and drops those that are; their writers get the error.

        A block with an idempotency key has one value, however many writers wait for it.
        """
        waiting = [[one] for one in self.futures] if len(self.futures) == len(self.texts) else [self.futures]
        fitting: list[tuple[str, list[asyncio.Future[int]]]] = []
        for text, futures in zip(self.texts, waiting, strict=True):
            error = refusal(text)
            if error is None:
                fitting.append((text, futures))
            else:
                _tell_error(futures, error)
        self.texts = [text for text, _ in fitting]
        self.futures = [one for _, futures in fitting for one in futures]


class OutsideWriter(Service, Generic[R]):
    """The group commit of writes from outside."""

    def __init__(
        self, name: str, pool: AsyncConnectionPool[Any], settings: Settings, announce: Callable[[Iterable[str]], None]
    ) -> None:
        super().__init__(name, interval=None)
        self._pool = pool
        self._settings = settings
        self._announce = announce
        self._pending: dict[StreamKey, list[PendingBlock]] = {}
        self._lost = 0
        """How often in a row other writers were faster in all streams."""

    # -- what the subclasses say -------------------------------------------------------------------------------------

    @abstractmethod
    async def _store(self, connection: AsyncConnection[Any], taken: list[tuple[StreamKey, PendingBlock]]) -> list[R]:
        """Sends the statement for these blocks; returns its answer for each."""

    @abstractmethod
    def _admit(self, stream_of: StreamKey, block: PendingBlock, result: R, before: Any) -> Any:
        """Of a block that would bring its stream above a limit, keeps only the values that fit, to be sent again.

        Returns what the next block of the stream has to count from, and is given that as ``before``.
        """

    @abstractmethod
    def _error(self, stream_of: StreamKey, block: PendingBlock, result: R) -> Exception | None:
        """Why the block can never be written; ``None`` if another writer was faster."""

    @abstractmethod
    def _warn_of_other_value(self, stream_of: StreamKey, producer: str) -> None:
        """Says that a producer was used before, for another value."""

    # -- what their callers add --------------------------------------------------------------------------------------

    async def _add(self, stream_of: StreamKey, text: str, producer: str | None) -> int:
        """Writes a value; returns its offset once it is durable. Without a producer it may share a block."""
        size = size_of(text)
        blocks = self._pending.setdefault(stream_of, [])
        block = blocks[-1] if blocks else None
        if producer is not None:
            block = next((one for one in blocks if one.producer == producer), None)
            if block is None:
                blocks.append(block := PendingBlock(producer, open=False, texts=[text], size=size))
            elif block.texts != [text]:
                self._warn_of_other_value(stream_of, producer)
            return await self._written(block)
        if block is None or not block.open or self._is_full(block):
            blocks.append(block := PendingBlock(unique_outsider()))
        block.texts.append(text)
        block.size += size
        return await self._written(block)

    async def _written(self, block: PendingBlock) -> int:
        self.check_open()
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        block.futures.append(future)
        self.wake()
        return await future

    def _is_full(self, block: PendingBlock) -> bool:
        return len(block.texts) >= self._settings.block_values or block.size >= self._settings.block_bytes

    async def close(self) -> None:
        """Ends the writes; a waiting writer gets an error, since its write is not known to be durable."""
        await super().close()
        set_closed(future for blocks in self._pending.values() for block in blocks for future in block.futures)

    # -- the statements ----------------------------------------------------------------------------------------------

    async def work_once(self) -> bool:
        """Writes what is pending, up to the limit of a batch; what was not written stays pending, in its order."""
        if self._failures:
            self._give_up()
        taken = list(self._take())
        if not taken:
            return False
        try:
            await self._write(taken)
        except PermissionDeniedError as error:  # trying again would change nothing
            for stream_of, block in taken:
                self._forget(stream_of, block)
                _tell_error(block.futures, error)
        except BaseException as error:
            if isinstance(error, psycopg.errors.UniqueViolation) or not (
                isinstance(error, Exception) and is_refused(error)
            ):
                raise  # the block is sent again as it is
            await self._one_by_one(taken)
        return bool(self._pending)

    def _give_up(self) -> None:
        """Forgets blocks that, if they are there, will soon not be found by their producers any more."""
        for stream_of, blocks in list(self._pending.items()):
            for block in [one for one in blocks if is_unsure(one.producer)]:
                self._forget(stream_of, block)
                _tell_error(block.futures, unsure_error(stream_of[0]))

    def _take(self) -> Iterator[tuple[StreamKey, PendingBlock]]:
        """Takes the blocks for the next statement: of each stream the first ones, and nothing behind an end."""
        limit = self._settings.batch_bytes
        for stream_of, blocks in self._pending.items():
            for block in blocks:
                if limit <= 0:
                    return
                limit -= block.size + 200
                block.open = False
                yield stream_of, block
                if block.kind.terminal:
                    break

    async def _one_by_one(self, taken: list[tuple[StreamKey, PendingBlock]]) -> None:
        """Writes the blocks one by one after the database has refused one for its data; the others go on without it."""
        for stream_of, block in taken:
            try:
                await self._write([(stream_of, block)])
            except BaseException as refused:
                if not (isinstance(refused, Exception) and is_refused(refused)):
                    raise
                if len(block.texts) > 1:
                    blocks = self._pending[stream_of]
                    place = blocks.index(block)
                    blocks[place : place + 1] = block.split()
                else:
                    self._forget(stream_of, block)
                    _tell_error(block.futures, SerializationError(f"the database refused the value: {refused}"))
                return

    async def _write(self, taken: list[tuple[StreamKey, PendingBlock]]) -> None:
        async with self._pool.connection() as connection:
            found = await self._store(connection, taken)
        written: set[StreamKey] = set()
        fitting: dict[StreamKey, Any] = {}
        progressed = False
        for (stream_of, block), result in zip(taken, found, strict=True):
            error = None if result.offset is not None else self._error(stream_of, block, result)
            if result.full and error is None:
                progressed = True
                fitting[stream_of] = self._admit(stream_of, block, result, fitting.get(stream_of))
                if not block.texts and not block.kind.terminal:
                    self._forget(stream_of, block)
                continue
            if result.offset is None and error is None and not (block.kind.terminal and result.ended):
                continue  # another writer was faster
            progressed = True
            self._forget(stream_of, block)
            if error is not None:
                _tell_error(block.futures, error)
                continue
            if result.differs:
                self._warn_of_other_value(stream_of, block.producer)
            written.add(stream_of)
            _tell(block, result.offset or 0)
        if written:
            self._announce([stream_topic(*stream_of) for stream_of in written])
        await self._give_way(progressed=progressed)

    async def _give_way(self, *, progressed: bool) -> None:
        """Gives way for a moment to a faster writer, or to an ending workflow, which does not wait."""
        self._lost = 0 if progressed else self._lost + 1
        if self._lost:
            pause = min(_FIRST_PAUSE * 2 ** min(self._lost, 10), _LONGEST_PAUSE)
            await asyncio.sleep(pause * random.random())  # noqa: S311 (jitter)

    def _forget(self, stream_of: StreamKey, block: PendingBlock) -> None:
        blocks = self._pending[stream_of]
        blocks.remove(block)
        if not blocks:
            del self._pending[stream_of]


def unsure_error(workflow_id: str) -> DatabaseUnavailableError:
    """The error of a write to a workflow that was tried for too long."""
    msg = (
        f"the database has not confirmed a write to workflow {workflow_id!r} for {SURE / 3600:.0f} hours: it is not "
        "known whether the value is there. With an idempotency key it can be written again after any time"
    )
    return DatabaseUnavailableError(msg)


def _tell(block: PendingBlock, offset: int) -> None:
    # A block with an idempotency key has one value, however many writers have written it.
    step = 0 if len(block.texts) <= 1 else 1
    for position, future in enumerate(block.futures):
        if not future.done():
            future.set_result(offset + position * step)


def _tell_error(futures: Iterable[asyncio.Future[int]], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
