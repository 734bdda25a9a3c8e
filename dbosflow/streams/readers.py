"""The two public readers of a stream: a blocking iterator of values, and a channel of items."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from dbosflow.errors import ConfigurationError, StreamRolledBackError, WorkflowBlockedError
from dbosflow.types import Rollback, StreamOutcome, StreamValue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType
    from typing import Self

    from dbosflow._runtime.streams.cursor import StreamCursor
    from dbosflow._runtime.streams.position import Item
    from dbosflow.streams.options import OnRollback

T = TypeVar("T")


class _Position:
    """The position of a reader: the common part of both kinds."""

    _cursor: StreamCursor

    @property
    def offset(self) -> int:
        """The offset to resume at: that of the first value that was not returned yet."""
        return self._cursor.offset

    @property
    def outcome(self) -> StreamOutcome | None:
        """How the stream ended, with its writer's final payload, once its last value was returned; else ``None``."""
        return self._cursor.outcome

    @property
    def closed(self) -> bool:
        """Whether the stream has ended and its last value was returned."""
        return self._cursor.outcome is not None


class StreamReader(_Position, Iterator[T], Generic[T]):
    """A blocking iterator over the values of a stream. It waits for each next value until the stream ends.

    Iterating raises ``StreamFailedError`` (its cause is the workflow's exception) or ``StreamCancelledError`` after the
    last value of a stream that ended badly. After a ``StreamTimeoutError``, ``WorkflowBlockedError`` or
    ``StreamRolledBackError`` the reader stays usable. The last one means that values that were returned no longer
    count, because the step's attempt that wrote them failed; ``on_rollback`` handles this in another way.
    """

    def __init__(self, cursor: StreamCursor, next_page: Callable[[], None], on_rollback: OnRollback = "raise") -> None:
        if not callable(on_rollback) and on_rollback not in {"raise", "ignore"}:
            msg = f'on_rollback={on_rollback!r} must be "raise", "ignore" or a function that takes a Rollback'
            raise ConfigurationError(msg)
        self._cursor = cursor
        self._next_page = next_page
        self._on_rollback = on_rollback

    def __next__(self) -> T:
        while True:
            item = self._take()
            if item is None:
                outcome = self._cursor.outcome
                if outcome is not None and outcome.error is not None:
                    raise outcome.error
                raise StopIteration
            if item.rollback is None:
                value: T = item.value
                return value
            self._rolled_back(item.rollback)

    def __iter__(self) -> Self:
        return self

    def read(self) -> StreamValue[T]:
        """The next item, as a channel has it: a value or a rollback; at the end always the ``closed`` one."""
        item = self._take()
        if item is not None:
            return StreamValue(item.value, item.offset, rollback=item.rollback)
        return last(self._cursor)

    def items(self) -> Iterator[StreamValue[T]]:
        """The remaining items, as a channel has them. The last one is ``closed``, unless ``until`` came before."""
        while True:
            item = self.read()
            if item.closed or not self._cursor.over:
                yield item
            if self._cursor.over:
                return

    def read_all(self) -> tuple[list[T], bool]:
        """Waits for the end, and returns the remaining values and whether the stream is closed.

        Values that are rolled back are left out, except with ``view="raw"``. How the stream ended is in ``outcome``; no
        error is raised for it. The stream is not closed if the workflow is blocked (there may be more values once it is
        resumed), or if ``until`` came before the end.
        """
        found: list[Item] = []
        try:
            while (item := self._take()) is not None:
                if item.rollback is None:
                    found.append(item)
                elif self._cursor.hides:
                    found = [one for one in found if one.offset not in item.rollback]
        except WorkflowBlockedError:
            return [one.value for one in found], False
        return [one.value for one in found], self.closed

    def _take(self) -> Item | None:
        """Waits for the next item; ``None`` when there are no more."""
        while True:
            item = self._cursor.take()
            if item is not None or self._cursor.over:
                return item
            self._next_page()

    def _rolled_back(self, rollback: Rollback) -> None:
        if callable(self._on_rollback):
            self._on_rollback(rollback)
        elif self._on_rollback == "raise":
            raise rolled_back(self._cursor, rollback)

    def close(self) -> None:
        """Ends the reader. It holds nothing but its page, so dropping it has the same effect."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class StreamChannel(_Position, AsyncIterator[StreamValue[T]], Generic[T]):
    """An async iterator over the items of a stream. It waits for each next item until the stream ends.

    The last item has ``closed`` set, and has an ``error`` if the stream ended badly. An item with a ``rollback`` rolls
    back values of earlier items. If the workflow is blocked, the last item has an ``error`` and is not ``closed``.
    """

    def __init__(self, cursor: StreamCursor, next_page: Callable[[], Awaitable[None]]) -> None:
        self._cursor = cursor
        self._next_page = next_page
        self._ended = False

    async def __anext__(self) -> StreamValue[T]:
        if self._ended:
            raise StopAsyncIteration
        try:
            item = await self.read()
        except WorkflowBlockedError as error:
            self._ended = True
            return StreamValue(cast("T", None), self._cursor.offset, error=error)
        self._ended = self._cursor.over
        if self._ended and not item.closed:
            raise StopAsyncIteration
        return item

    def __aiter__(self) -> Self:
        return self

    def rolled_back(self, rollback: Rollback) -> StreamRolledBackError:
        """The error that readers of plain values get for a rollback."""
        return rolled_back(self._cursor, rollback)

    async def read(self) -> StreamValue[T]:
        """The next item: a value or a rollback; at the end always the ``closed`` one."""
        while True:
            item = self._cursor.take()
            if item is not None:
                return StreamValue(item.value, item.offset, rollback=item.rollback)
            if self._cursor.over:
                return last(self._cursor)
            await self._next_page()

    async def aclose(self) -> None:
        """Ends the channel. It holds nothing but its page, so dropping it has the same effect."""
        self._ended = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def rolled_back(cursor: StreamCursor, rollback: Rollback) -> StreamRolledBackError:
    """The error that readers of plain values get for a rollback."""
    offsets = ", ".join(f"{first} to {stop - 1}" for first, stop in rollback.ranges)
    msg = (
        f"stream {cursor.key!r} of workflow {cursor.workflow_id!r}: attempt {rollback.attempt} of step "
        f"{rollback.step_key!r} did not succeed, so its values at offsets {offsets} no longer count. "
        'Reading can go on. Pass on_rollback=, or read with view="committed"'
    )
    return StreamRolledBackError(cursor.workflow_id, cursor.key, msg, rollback)


def last(cursor: StreamCursor) -> StreamValue[Any]:
    """The item at the end of a stream."""
    outcome = cursor.outcome
    error = None if outcome is None else outcome.error
    return StreamValue(None, cursor.offset, closed=outcome is not None, error=error)


def cursor_of(source: object) -> StreamCursor | None:
    """The cursor of a reader or a channel."""
    return source._cursor if isinstance(source, StreamReader | StreamChannel) else None  # noqa: SLF001 (of this module)
