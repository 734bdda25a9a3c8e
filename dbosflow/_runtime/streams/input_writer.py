"""Writes to the declared inputs of workflows, from outside: see ``outside_writer``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from dbosflow._records.producers import idempotency_key_of, of_idempotency_key
from dbosflow._runtime.streams.limits import refusal, too_large
from dbosflow._runtime.streams.outside_writer import OutsideWriter, PendingBlock
from dbosflow._store import stream
from dbosflow._store.stream import Appended, Seen
from dbosflow.errors import StreamClosedError, StreamInputError, WorkflowNotFoundError
from dbosflow.serde import size_of
from dbosflow.types import FrameKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from psycopg import AsyncConnection
    from psycopg_pool import AsyncConnectionPool

    from dbosflow._runtime.streams.outside_writer import StreamKey
    from dbosflow.config import Settings

logger = logging.getLogger("dbosflow.inputs")

_REMEMBERED = 10_000
"""Streams whose size is remembered, to refuse writes over a limit early; the statement checks them anyway."""


class InputWriter(OutsideWriter[Appended]):
    """The group commit of writes to inputs."""

    def __init__(
        self, pool: AsyncConnectionPool[Any], settings: Settings, announce: Callable[[Iterable[str]], None]
    ) -> None:
        super().__init__("inputs", pool, settings, announce)
        self._seen: dict[StreamKey, Seen] = {}
        """How much was written lately to streams that have a limit."""

    async def append(self, workflow_id: str, key: str, text: str, idempotency_key: str | None) -> int:
        """Writes a value; returns its offset once it is durable."""
        size = size_of(text)
        if size > self._settings.value_bytes:
            raise too_large(self._settings, (workflow_id, key), size)
        producer = None if idempotency_key is None else of_idempotency_key(idempotency_key)
        return await self._add((workflow_id, key), text, producer)

    async def end(self, workflow_id: str, key: str) -> None:
        """Ends an input, durable on return. An ended input stays as it is."""
        block = PendingBlock("", FrameKind.COMPLETE, open=False)
        self._pending.setdefault((workflow_id, key), []).append(block)
        await self._written(block)

    async def _store(
        self, connection: AsyncConnection[Any], taken: list[tuple[StreamKey, PendingBlock]]
    ) -> list[Appended]:
        rows = [
            (*stream_of, block.count, block.kind, block.values, size_of(block.values or ""), block.producer)
            for stream_of, block in taken
        ]
        found = await stream.append(
            connection,
            self._settings.schema,
            rows,
            max_values=self._settings.stream_values,
            max_bytes=self._settings.stream_bytes,
            seen=self._seen,
        )
        self._see(taken, found)
        return found

    def _see(self, taken: Iterable[tuple[StreamKey, PendingBlock]], found: Iterable[Appended]) -> None:
        """Remembers how much has been written to streams that have a limit."""
        for (stream_of, _), result in zip(taken, found, strict=True):
            if result.seen is not None:
                self._seen.pop(stream_of, None)
                self._seen[stream_of] = result.seen
        while len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]

    def _admit(self, stream_of: StreamKey, block: PendingBlock, result: Appended, before: Seen | None) -> Seen | None:
        seen = before or result.seen
        if seen is None or block.kind.terminal:
            return seen
        run, values, written = seen

        def refused(text: str) -> Exception | None:
            nonlocal values, written
            size = size_of(text)
            error = refusal(self._settings, stream_of, values, written, size)
            if error is None:
                values, written = values + 1, written + size + 1
            return error

        block.refuse(refused)
        return Seen(run, values, written)

    def _error(self, stream_of: StreamKey, block: PendingBlock, result: Appended) -> Exception | None:
        workflow_id, key = stream_of
        if result.status is None:
            msg = f"there is no workflow {workflow_id!r}: start it, then write to it"
            return WorkflowNotFoundError(workflow_id, msg)
        if not result.declared:
            inputs = ", ".join(map(repr, result.input_streams)) or "none"
            msg = (
                f"stream {key!r} is no input of workflow {workflow_id!r}, which was started with these: {inputs}. "
                f"What is written from outside is declared, as in @workflow(inputs=[{key!r}]), before the workflow "
                "starts"
            )
            return StreamInputError(workflow_id, key, msg)
        if not result.ended or block.kind.terminal:
            return None
        why = f"the workflow has ended: {result.status}" if result.status.ended else "it was closed from outside"
        msg = f"input {key!r} of workflow {workflow_id!r} is closed ({why}); nothing can be written after that"
        return StreamClosedError(workflow_id, key, msg)

    def _warn_of_other_value(self, stream_of: StreamKey, producer: str) -> None:
        workflow_id, key = stream_of
        logger.warning(
            "input %s of workflow %s: idempotency key %r was used before, for another value, which stays",
            *(key, workflow_id, idempotency_key_of(producer)),
        )
