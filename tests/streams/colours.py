"""Sources that count, in each of their four colours, and a face by which one test drives them all."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

from dbosflow._runtime.streams.position import Item
from dbosflow.streams import StreamChannel, StreamReader, StreamValue
from dbosflow.types import FrameKind, StreamOutcome

if TYPE_CHECKING:
    from dbosflow._runtime.streams.cursor import StreamCursor


class Counting:
    """What a source has to say of itself."""

    pulled: int
    closings: int


class Source(Iterator[Any], Counting):
    """A sync source: ``values``, and then its end or ``error``."""

    def __init__(self, values: Iterable[Any], error: BaseException | None = None) -> None:
        self._values = iter(values)
        self._error = error
        self.pulled = self.closings = 0

    def __next__(self) -> Any:
        for value in self._values:
            self.pulled += 1
            return value
        if self._error is not None:
            raise self._error
        raise StopIteration

    def close(self) -> None:
        self.closings += 1


class AsyncSource(AsyncIterator[Any], Counting):
    """The same, async."""

    def __init__(self, values: Iterable[Any], error: BaseException | None = None) -> None:
        self._values = iter(values)
        self._error = error
        self.pulled = self.closings = 0

    async def __anext__(self) -> Any:
        await asyncio.sleep(0)
        for value in self._values:
            self.pulled += 1
            return value
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closings += 1


class FakeCursor:
    """As much of a stream's cursor as the two readers use, with a page for each value."""

    def __init__(self, values: Iterable[Any], error: BaseException | None) -> None:
        self._values = iter(values)
        self._ending = StreamOutcome(FrameKind.COMPLETE if error is None else FrameKind.ERROR, error)
        self._page: deque[Item] = deque()
        self._ended = False
        self.outcome: StreamOutcome | None = None
        self.over = False
        self.offset = 0

    def take(self) -> Item | None:
        if self._page:
            self.offset += 1
            return self._page.popleft()
        self.outcome, self.over = (self._ending, True) if self._ended else (None, False)
        return None

    def next_page(self) -> None:
        for value in self._values:
            self._page.append(Item(value, self.offset))
            return
        self._ended = True

    async def next_page_async(self) -> None:
        await asyncio.sleep(0)
        self.next_page()


class CountingReader(StreamReader[Any], Counting):
    """The blocking face of a stream."""

    def __init__(self, values: Iterable[Any], error: BaseException | None = None) -> None:
        cursor = FakeCursor(values, error)
        super().__init__(cast("StreamCursor", cursor), cursor.next_page)
        self.pulled = self.closings = 0

    def __next__(self) -> Any:
        value = super().__next__()
        self.pulled += 1
        return value

    def close(self) -> None:
        super().close()
        self.closings += 1


class CountingChannel(StreamChannel[Any], Counting):
    """The async face of a stream: items."""

    def __init__(self, values: Iterable[Any], error: BaseException | None = None) -> None:
        cursor = FakeCursor(values, error)
        super().__init__(cast("StreamCursor", cursor), cursor.next_page_async)
        self.pulled = self.closings = 0

    async def __anext__(self) -> StreamValue[Any]:
        item = await super().__anext__()
        self.pulled += not item.closed
        return item

    async def aclose(self) -> None:
        await super().aclose()
        self.closings += 1


class Colour:
    """One kind of source, and how to read what is made of it."""

    def __init__(self, source: type[Any], runner: asyncio.Runner | None) -> None:
        self.source = source
        self._runner = runner

    def next(self, values: Any) -> Any:
        return next(values) if self._runner is None else self._runner.run(values.__anext__())

    def close(self, values: Any) -> None:
        if self._runner is None:
            values.close()
        else:
            self._runner.run(values.aclose())

    def read(self, values: Any) -> list[Any]:
        return list(values) if self._runner is None else self._runner.run(_read(values))

    def read_until_error(self, values: Any) -> tuple[list[Any], BaseException]:
        """What came, and the error behind it."""
        came, error = self.read_to_either_end(values)
        assert error is not None, f"no error behind {came}"
        return came, error

    def get(self, value: Any) -> Any:
        """A value, or what an awaitable gives."""
        return value if self._runner is None else self._runner.run(value)

    @property
    def asynchronous(self) -> bool:
        return self._runner is not None

    def read_to_either_end(self, values: Any) -> tuple[list[Any], BaseException | None]:
        """What came, and the error behind it, if there was one."""
        came = []
        try:
            while True:
                came.append(self.next(values))
        except (StopIteration, StopAsyncIteration):
            return came, None
        except Exception as error:  # noqa: BLE001 (what the test asks for)
            return came, error

    def settle(self) -> None:
        """Lets a loop do what it has begun."""
        if self._runner is not None:
            self._runner.run(_settle())

    def leave_after_one(self, values: Any) -> None:
        """A loop that is left early, in a ``with`` block."""
        if self._runner is not None:
            self._runner.run(_leave_after_one(values))
            return
        with values as opened:
            for _ in opened:
                break


async def _read(values: Any) -> list[Any]:
    return [value async for value in values]


async def _settle() -> None:
    for _ in range(9):  # what the loop closes for a dropped iterator is a task of its own
        await asyncio.sleep(0)


async def _leave_after_one(values: Any) -> None:
    async with values as opened:
        async for _ in opened:
            break
