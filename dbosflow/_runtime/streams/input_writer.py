"""Appends outside writes to inputs: many values in one statement, on a connection of the pool. Needs no lease.

```text
write ──► block in memory ──► append ──► its offset: the writer gets it, readers wake
              ▲                 ├── another writer was faster ──► again, with the tail that it left
              │                 ├── connection lost ──► again; what was committed all the same is found by its producer
              └─────────────────┤
                                ├── above a limit ──► a typed error for what does not fit, and the rest again
                                └── no such workflow, no input, ended ──► a typed error
```

Waiting values go together: those of one stream in the order in which they were written, as one block where possible. A
block has a producer of its own, the idempotency key or a unique id, and exists at most once for that producer.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg

from dbosflow._records.producers import idempotency_key_of, of_idempotency_key, unique_outsider
from dbosflow._runtime.process.service import Service, set_closed
from dbosflow._runtime.streams.limits import refusal, too_large
from dbosflow._store import stream
from dbosflow._store.notify import stream_topic
from dbosflow._store.queries import is_refused
from dbosflow._store.stream import Seen
from dbosflow.errors import (
    PermissionDeniedError,
    SerializationError,
    StreamClosedError,
    StreamInputError,
    WorkflowNotFoundError,
)
from dbosflow.serde import size_of
from dbosflow.types import FrameKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from psycopg_pool import AsyncConnectionPool

    from dbosflow._store.stream import Appended
    from dbosflow.config import Settings

logger = logging.getLogger("dbosflow.appender")

_FIRST_PAUSE = 0.001
"""Seconds, doubled at each lost race for an offset in a stream: about the time of the statement that won."""
_LONGEST_PAUSE = 0.05
"""Seconds: the writers wait for it, and the races are short however many take part."""
_REMEMBERED = 10_000
"""Streams whose size is remembered, to refuse writes over a limit early; the statement checks them anyway."""

_StreamKey = tuple[str, str]
"""Workflow id and key."""


@dataclass(slots=True, eq=False)
class _PendingBlock:
    """Consecutive values, or the end of the stream, and the waiters of each."""

    producer: str
    kind: FrameKind = FrameKind.VALUES
    open: bool = True
    """Whether more values may join the block: until it is first sent, since it may be durable from then on."""
    texts: list[str] = field(default_factory=list)
    futures: list[asyncio.Future[int]] = field(default_factory=list)
    size: int = 0

    def split(self) -> list[_PendingBlock]:
        """Splits a refused block, nothing of which is stored, into one for each value."""
        pairs = zip(self.texts, self.futures, strict=True)
        return [_PendingBlock(unique_outsider(), open=False, texts=[text], futures=[one]) for text, one in pairs]

    def row(self, stream_of: _StreamKey) -> tuple[Any, ...]:
        """The block as a row of the statement."""
        values = f"[{','.join(self.texts)}]" if self.kind is FrameKind.VALUES else None
        return (*stream_of, max(len(self.texts), 1), self.kind, values, size_of(values or ""), self.producer)

    def admit(self, settings: Settings, stream_of: _StreamKey, seen: Seen) -> Seen:
        """Refuses the values that do not fit behind what was ``seen``; returns what is seen with the rest.

        A block with an idempotency key has one value, however many writers wait for it.
        """
        run, values, written = seen
        waiting = [[one] for one in self.futures] if len(self.futures) == len(self.texts) else [self.futures]
        fitting: list[tuple[str, list[asyncio.Future[int]]]] = []
        for text, futures in zip(self.texts, waiting, strict=True):
            size = size_of(text)
            error = refusal(settings, stream_of, values, written, size)
            if error is None:
                fitting.append((text, futures))
                values, written = values + 1, written + size + 1
            else:
                _tell_error(futures, error)
        self.texts = [text for text, _ in fitting]
        self.futures = [one for _, futures in fitting for one in futures]
        return Seen(run, values, written)


class InputWriter(Service):
    """The group commit of writes to inputs."""

    def __init__(
        self, pool: AsyncConnectionPool[Any], settings: Settings, announce: Callable[[Iterable[str]], None]
    ) -> None:
        super().__init__("appender", interval=None)
        self._pool = pool
        self._settings = settings
        self._announce = announce
        self._pending: dict[_StreamKey, list[_PendingBlock]] = {}
        self._seen: dict[_StreamKey, Seen] = {}
        """How much was written lately to streams that have a limit."""
        self._lost = 0
        """How often in a row other writers were faster in all streams."""

    async def append(self, workflow_id: str, key: str, text: str, idempotency_key: str | None) -> int:
        """Writes a value; returns its offset once it is durable."""
        size = size_of(text)
        if size > self._settings.value_bytes:
            raise too_large(self._settings, (workflow_id, key), size)
        blocks = self._pending.setdefault((workflow_id, key), [])
        block = blocks[-1] if blocks else None
        if idempotency_key is not None:
            producer = of_idempotency_key(idempotency_key)
            block = next((one for one in blocks if one.producer == producer), None)
            if block is None:
                blocks.append(block := _PendingBlock(producer, open=False, texts=[text], size=size))
            elif block.texts != [text]:
                _warn_of_other_value(workflow_id, key, idempotency_key)
            return await self._written(block)
        if block is None or not block.open or self._is_full(block):
            blocks.append(block := _PendingBlock(unique_outsider()))
        block.texts.append(text)
        block.size += size
        return await self._written(block)

    async def end(self, workflow_id: str, key: str) -> None:
        """Ends an input, durable on return. An ended input stays as it is."""
        block = _PendingBlock("", FrameKind.COMPLETE, open=False)
        self._pending.setdefault((workflow_id, key), []).append(block)
        await self._written(block)

    async def _written(self, block: _PendingBlock) -> int:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        block.futures.append(future)
        self.wake()
        return await future

    def _is_full(self, block: _PendingBlock) -> bool:
        return len(block.texts) >= self._settings.block_values or block.size >= self._settings.block_bytes

    async def close(self) -> None:
        """Ends the writes; a waiting writer gets an error, since its write is not known to be durable."""
        await super().close()
        set_closed(future for blocks in self._pending.values() for block in blocks for future in block.futures)

    async def work_once(self) -> bool:
        """Writes what is pending, up to the limit of a batch; what was not written stays pending, in its order."""
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

    def _take(self) -> Iterator[tuple[_StreamKey, _PendingBlock]]:
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

    async def _one_by_one(self, taken: list[tuple[_StreamKey, _PendingBlock]]) -> None:
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

    async def _write(self, taken: list[tuple[_StreamKey, _PendingBlock]]) -> None:
        async with self._pool.connection() as connection:
            rows = [block.row(stream_of) for stream_of, block in taken]
            found = await stream.append(
                connection,
                self._settings.schema,
                rows,
                max_values=self._settings.stream_values,
                max_bytes=self._settings.stream_bytes,
                seen=self._seen,
            )
        self._see(taken, found)
        written: set[_StreamKey] = set()
        fitting: dict[_StreamKey, Seen] = {}
        progressed = False
        for (stream_of, block), result in zip(taken, found, strict=True):
            error = None if result.offset is not None else _error(stream_of, block, result)
            if result.full and error is None and result.seen is not None:
                progressed = True
                fitting[stream_of] = self._admit(stream_of, block, fitting.get(stream_of, result.seen))
                continue
            if result.offset is None and error is None and not (block.kind.terminal and result.ended):
                continue  # another writer was faster
            progressed = True
            self._forget(stream_of, block)
            if error is not None:
                _tell_error(block.futures, error)
                continue
            if result.differs:
                _warn_of_other_value(*stream_of, idempotency_key_of(block.producer))
            written.add(stream_of)
            _tell(block, result.offset or 0)
        if written:
            self._announce([stream_topic(*stream_of) for stream_of in written])
        self._lost = 0 if progressed else self._lost + 1
        if self._lost:  # gives way for a moment to the faster writer, or to an ending workflow, which does not wait
            pause = min(_FIRST_PAUSE * 2 ** min(self._lost, 10), _LONGEST_PAUSE)
            await asyncio.sleep(pause * random.random())  # noqa: S311 (jitter)

    def _see(self, taken: Iterable[tuple[_StreamKey, _PendingBlock]], found: Iterable[Appended]) -> None:
        """Remembers how much has been written to streams that have a limit."""
        for (stream_of, _), result in zip(taken, found, strict=True):
            if result.seen is not None:
                self._seen.pop(stream_of, None)
                self._seen[stream_of] = result.seen
        while len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]

    def _admit(self, stream_of: _StreamKey, block: _PendingBlock, seen: Seen) -> Seen:
        """Of a block that would bring its stream above a limit, keeps only the values that fit, to be sent again."""
        if block.kind.terminal:
            return seen
        seen = block.admit(self._settings, stream_of, seen)
        if not block.texts:
            self._forget(stream_of, block)
        return seen

    def _forget(self, stream_of: _StreamKey, block: _PendingBlock) -> None:
        blocks = self._pending[stream_of]
        blocks.remove(block)
        if not blocks:
            del self._pending[stream_of]


def _error(stream_of: _StreamKey, block: _PendingBlock, result: Appended) -> Exception | None:
    """Why the block can never be written; ``None`` if another writer was faster."""
    workflow_id, key = stream_of
    if result.status is None:
        return WorkflowNotFoundError(workflow_id, f"there is no workflow {workflow_id!r}: start it, then write to it")
    if not result.declared:
        inputs = ", ".join(map(repr, result.input_streams)) or "none"
        msg = (
            f"stream {key!r} is no input of workflow {workflow_id!r}, which was started with these: {inputs}. What is "
            f"written from outside is declared, as in @workflow(inputs=[{key!r}]), before the workflow starts"
        )
        return StreamInputError(workflow_id, key, msg)
    if not result.ended or block.kind.terminal:
        return None
    why = f"the workflow has {result.status}" if result.status.ended else "it was closed from outside"
    msg = f"input {key!r} of workflow {workflow_id!r} is closed ({why}); nothing can be written after that"
    return StreamClosedError(workflow_id, key, msg)


def _warn_of_other_value(workflow_id: str, key: str, idempotency_key: str) -> None:
    logger.warning(
        "input %s of workflow %s: idempotency key %r was used before, for another value, which stays",
        *(key, workflow_id, idempotency_key),
    )


def _tell(block: _PendingBlock, offset: int) -> None:
    # A block with an idempotency key has one value, however many writers have written it.
    step = 0 if len(block.texts) <= 1 else 1
    for position, future in enumerate(block.futures):
        if not future.done():
            future.set_result(offset + position * step)


def _tell_error(futures: Iterable[asyncio.Future[int]], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
