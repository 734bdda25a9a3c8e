"""The two faces of a reader: a blocking iterator of values, and a channel of items."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dbosflow.errors import WorkflowBlockedError
from dbosflow.types import StreamOutcome, StreamValue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType
    from typing import Self

    from dbosflow._runtime.reader import Reader

T = TypeVar("T")


class StreamReader(Iterator[T], Generic[T]):
    """A blocking iterator over the values of a stream, live: it waits for each next one until the stream ends.

    After the last value of a stream that ended badly it raises :class:`~dbosflow.errors.StreamFailedError` (the
    workflow's exception is its cause) or :class:`~dbosflow.errors.StreamCancelledError`. A
    :class:`~dbosflow.errors.StreamTimeoutError` or :class:`~dbosflow.errors.WorkflowBlockedError` leaves it usable.
    """

    def __init__(self, reader: Reader, next_page: Callable[[], None]) -> None:
        self._reader = reader
        self._next_page = next_page

    @property
    def offset(self) -> int:
        """The offset to resume at: that of the first value that was not handed out."""
        return self._reader.offset

    @property
    def outcome(self) -> StreamOutcome | None:
        """How the stream ended, once its last value was handed out."""
        return self._reader.outcome

    @property
    def closed(self) -> bool:
        """Whether the stream has ended and its last value was handed out."""
        return self._reader.outcome is not None

    def __next__(self) -> T:
        while True:
            item = self._reader.take()
            if item is not None:
                value: T = item.value
                return value
            outcome = self._reader.outcome
            if outcome is not None:
                if outcome.error is not None:
                    raise outcome.error
                raise StopIteration
            self._next_page()

    def __iter__(self) -> Self:
        return self

    def read_all(self) -> tuple[list[T], bool]:
        """The values from here to the end, and whether the stream is closed.

        Waits for the end. How it ended is in :attr:`outcome`, nothing is raised for it. ``closed`` is false only when
        the workflow is blocked: then more may come when it is resumed.
        """
        values: list[T] = []
        while True:
            while (item := self._reader.take()) is not None:
                values.append(item.value)
            if self._reader.outcome is not None:
                return values, True
            try:
                self._next_page()
            except WorkflowBlockedError:
                return values, False

    def close(self) -> None:
        """Forgets the stream. A reader holds nothing but its page; dropping it is as good."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class StreamChannel(AsyncIterator[StreamValue[T]], Generic[T]):
    """An async iterator over the items of a stream, live.

    The last item has ``closed`` set, and ``error`` if the stream ended badly.

    Where the workflow is blocked, the last item has an ``error`` and is not ``closed``.
    """

    def __init__(self, reader: Reader, next_page: Callable[[], Awaitable[None]]) -> None:
        self._reader = reader
        self._next_page = next_page
        self._ended = False

    @property
    def offset(self) -> int:
        """The offset to resume at: that of the first value that was not handed out."""
        return self._reader.offset

    @property
    def outcome(self) -> StreamOutcome | None:
        """How the stream ended, once its last value was handed out."""
        return self._reader.outcome

    async def __anext__(self) -> StreamValue[T]:
        if self._ended:
            raise StopAsyncIteration
        while True:
            item = self._reader.take()
            if item is not None:
                return StreamValue(item.value, item.offset)
            outcome = self._reader.outcome
            if outcome is not None:
                self._ended = True
                return _last(self._reader.offset, outcome.error, closed=True)
            try:
                await self._next_page()
            except WorkflowBlockedError as error:
                self._ended = True
                return _last(self._reader.offset, error, closed=False)

    def __aiter__(self) -> Self:
        return self

    async def aclose(self) -> None:
        """Forgets the stream. A channel holds nothing but its page; dropping it is as good."""
        self._ended = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def _last(offset: int, error: BaseException | None, *, closed: bool) -> StreamValue[Any]:
    return StreamValue(None, offset, closed=closed, error=error)
