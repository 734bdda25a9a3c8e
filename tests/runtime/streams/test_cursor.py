"""A cursor's position: what a page changes of it, and that a page which did not count changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from dbosflow._runtime.streams.cursor import StreamCursor
from dbosflow._runtime.streams.hub import UNSEEN
from dbosflow._runtime.streams.paging import PageReader
from dbosflow._runtime.streams.position import Position, ReadRequest
from dbosflow._store.stream import Block, Page
from dbosflow.types import FrameKind, WorkflowStatus

if TYPE_CHECKING:
    from dbosflow._runtime.streams.hub import SeenStatus

ROLLED_BACK = ((3, 5),)


def values(offset: int, *numbers: int) -> Block:
    """Values of a stream."""
    return Block(offset, len(numbers), FrameKind.VALUES, str(list(numbers)), "", None)


PAGES = {
    0: Page(WorkflowStatus.RUNNING, None, (values(0, 10, 11), values(2, 12)), complete=False),
    3: Page(
        WorkflowStatus.SUCCEEDED,
        None,
        (
            values(3, 13, 14),
            Block(5, 1, FrameKind.ROLLBACK, "[[3, 5]]", "s#0@1.1", "1.1"),
            values(6, 15),
            Block(7, 1, FrameKind.COMPLETE, "7", "", None),
        ),
        complete=True,
        rollbacks=((5, ROLLED_BACK),),
    ),
}


class Shelf:
    """A hub whose pages lie there."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, SeenStatus]] = []

    async def read(self, _id: str, _key: str, offset: int, known: SeenStatus, *, committed: bool = False) -> Page:
        """The page at an offset."""
        self.asked.append((offset, known))
        return PAGES[offset]

    async def resolve_start(self, _request: ReadRequest) -> int:
        """The second page begins at the tail."""
        return 3


def cursor(shelf: Shelf, **asked: Any) -> StreamCursor:
    """A cursor of such a stream."""
    return StreamCursor(cast("Any", shelf), shelf, ReadRequest("w", "k", **asked))


def taken(cursor: StreamCursor) -> list[Any]:
    """The values of the page at hand."""
    found = []
    while (item := cursor.take()) is not None:
        found.append(item.value)
    return found


async def lose_a_page(cursor: StreamCursor) -> None:
    """Reads it, and then it does not count."""
    with pytest.raises(ZeroDivisionError), cursor.restored_on_failure():  # noqa: PT012
        await cursor.next_page()
        raise ZeroDivisionError


@pytest.mark.parametrize("start", [0, 3, "tail"])
async def test_a_page_that_did_not_count_is_read_again(start: Any) -> None:
    """The same question is asked, and gives the same: whatever a page tells a cursor is in its position."""
    shelf, undisturbed = Shelf(), Shelf()
    one, other = cursor(shelf, start=start), cursor(undisturbed, start=start)
    while not other.over:
        await other.next_page()
        before = one.offset, one.progress()
        await lose_a_page(one)
        assert (one.offset, one.progress()) == before
        await one.next_page()
        assert taken(one) == taken(other)
        assert (one.offset, one.progress()) == (other.offset, other.progress())
    assert one.over
    assert shelf.asked == [asked for asked in undisturbed.asked for _ in range(2)]


def test_a_page_moves_each_part_of_a_position() -> None:
    """All but what the page itself does not tell: where the reader began, and what it last saw of the workflow."""
    before = Position(next=2, start=1)
    first = PageReader(ReadRequest("w", "k"), before)
    first.accept(
        Page(WorkflowStatus.RUNNING, None, (values(2, 12), values(3, 13)), True, rollbacks=((5, ROLLED_BACK),))
    )
    # the one value there that it was not given by the time it learned of the rollback
    assert [item.value for item in first.items] == [12]
    assert (first.position.next, dict(first.position.rollbacks), first.position.known_rollbacks) == (4, {5: False}, 6)
    last = PageReader(ReadRequest("w", "k"), first.position)
    last.accept(PAGES[3])
    assert [item.value for item in last.items] == [15]
    assert last.position.end == (FrameKind.COMPLETE, "7")
    assert last.position.ending is not None
    assert last.position.ending.final == 7
    assert not last.position.rollbacks
    assert (last.position.start, last.position.status) == (1, UNSEEN)
    assert before == Position(next=2, start=1)
