"""The buffer of a run: nothing is lost, doubled or put out of order, and everybody who waits is told, once."""

from __future__ import annotations

from concurrent.futures import Future

from hypothesis import given
from hypothesis import strategies as st

from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.runs.buffer import Buffer
from dbosflow._runtime.runs.entries import Barrier, Entry, Record, Values

SIZES = st.lists(st.integers(0, 500), max_size=12)


def entry(size: int) -> Record:
    """A record of 200 bytes and these."""
    return Record("work#0", RecordKind.STEP, output="x" * size)


def filled(sizes: list[int], limit: int = 10**6) -> tuple[Buffer, list[Entry]]:
    """A buffer with entries of these sizes."""
    buffer = Buffer(limit)
    entries: list[Entry] = [entry(size) for size in sizes]
    with buffer.lock:
        for one in entries:
            buffer.push(one)
    return buffer, entries


@given(SIZES, st.integers(0, 1500))
def test_batches_of_any_size_take_all_entries_once_and_in_order(sizes: list[int], limit: int) -> None:
    buffer, entries = filled(sizes)
    taken: list[Entry] = []
    more = True
    while more:
        part, size, more = buffer.take(limit)
        assert part or not entries, "a batch takes one at least, or it would never get on"
        assert sum(one.size for one in part[:-1]) < max(limit, 1), "taken beyond the limit"
        assert size == sum(one.size for one in part)
        taken += part
    assert taken == entries
    assert buffer.take(limit) == ((), 0, False)


@given(SIZES, st.integers(1, 3000))
def test_a_buffer_has_room_until_what_is_not_durable_reaches_the_limit(sizes: list[int], limit: int) -> None:
    buffer, entries = filled(sizes, limit)
    pending = sum(one.size for one in entries)
    assert (buffer.size, buffer.has_room) == (pending, pending < limit)
    buffer.take(10**6)
    assert buffer.size == pending, "what is on its way is not durable yet"
    for one in entries:
        buffer.free(one.size)
        pending -= one.size
        assert buffer.has_room == (pending < limit)
    assert buffer.size == 0


def test_entries_left_by_a_batch_stand_before_those_that_come_next() -> None:
    buffer, entries = filled([0, 0, 0])
    assert buffer.take(1) == (entries[:1], 200, True)
    buffer.free(200)
    buffer.push(last := entry(0))
    assert buffer.take(10**6) == ([*entries[1:], last], 600, False)


def test_nothing_is_added_to_values_that_a_batch_has_taken() -> None:
    buffer = Buffer(10**6)
    taken, left = Values("a", "", 0, None), Values("b", "", 0, None)
    buffer.push(taken)
    buffer.push(left)
    buffer.take(1)
    assert (taken.is_open, left.is_open) == (False, True)


def test_a_run_whose_entries_were_taken_must_be_submitted_again() -> None:
    """What is pushed meanwhile would else wait for a journal that knows of nothing."""
    buffer, _ = filled([0])
    buffer.submitted = True
    buffer.take(1)
    assert not buffer.submitted


def test_a_writer_that_waits_for_room_is_called_once_when_there_is_some() -> None:
    buffer, (first, second, third) = filled([0, 0, 0], limit=400)
    called: list[str] = []
    buffer.expect_room(lambda: called.append("one"))
    buffer.expect_room(lambda: called.append("other"))
    buffer.free(first.size)
    assert called == [], "as full as the limit"
    buffer.free(second.size)
    buffer.free(third.size)
    assert called == ["one", "other"]


def test_a_writer_that_hears_of_room_may_fill_it_at_once() -> None:
    """It is called without the lock, which a write takes."""
    buffer, (first,) = filled([0], limit=100)

    def write() -> None:
        assert buffer.lock.acquire(blocking=False)
        buffer.lock.release()

    buffer.expect_room(write)
    buffer.free(first.size)
    buffer.expect_room(write)
    buffer.drop(RuntimeError("lost"))


def test_a_durable_outcome_is_delivered_to_its_waiter_and_no_other() -> None:
    buffer = Buffer(1)
    one, other = Future[None](), Future[None]()
    buffer.push(Barrier(one), one)
    buffer.push(Barrier(other), other)
    buffer.notify(Record("work#0", RecordKind.STEP, waiter=one))
    assert one.done()
    assert not other.done()
    buffer.notify(Barrier(other))
    assert other.done()
    buffer.notify(Record("work#1", RecordKind.STEP))


def test_an_outcome_for_a_waiter_that_was_cancelled_is_no_error() -> None:
    buffer, waiter = Buffer(1), Future[None]()
    buffer.push(Barrier(waiter), waiter)
    waiter.cancel()
    buffer.notify(Barrier(waiter))
    buffer.push(Barrier(waiter), waiter)
    buffer.drop(RuntimeError("lost"))
    assert waiter.cancelled()


def test_a_dropped_buffer_writes_nothing_and_ends_all_waiting_with_the_reason() -> None:
    buffer, _ = filled([0, 0], limit=1)
    waiting, notified, rooms = Future[None](), Future[None](), list[str]()
    buffer.push(Barrier(waiting), waiting)
    buffer.push(Barrier(notified), notified)
    buffer.expect_room(lambda: rooms.append("stopped"))
    buffer.notify(Barrier(notified))
    reason = RuntimeError("lost")
    buffer.drop(reason)
    buffer.drop(RuntimeError("again"))
    assert buffer.take(10**6) == ((), 0, False)
    assert waiting.exception() is reason
    assert notified.result() is None
    assert rooms == ["stopped"]
