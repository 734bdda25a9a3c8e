"""What the owner of a workflow knows of one stream, by the diagram of the module."""

from __future__ import annotations

from dbosflow._runtime.runs.entries import Values
from dbosflow._runtime.streams.state import StreamState


def looks(stream: StreamState) -> tuple[bool, bool]:
    """Whether it is closed, and ended."""
    return stream.closed, stream.ended


def test_a_closed_stream_is_ended_when_its_end_has_its_place() -> None:
    stream = StreamState()
    stream.close(by_step=False)
    assert looks(stream) == (True, False)
    stream.end()
    assert looks(stream) == (True, True)


def test_a_stream_that_was_closed_before_this_pass_is_ended() -> None:
    assert looks(StreamState(4, closed=True)) == (True, True)


def test_a_rolled_back_wish_to_close_opens_the_stream_again() -> None:
    stream = StreamState()
    stream.close(by_step=True)
    stream.reopen()
    assert looks(stream) == (False, False)


def test_a_close_that_is_to_be_repeated_has_not_happened_yet() -> None:
    stream = StreamState(4, closed=True)
    stream.repeat()
    assert looks(stream) == (False, False)


def test_a_stream_remembers_whether_a_step_has_closed_it() -> None:
    """A replay may come to that close sooner, later, or never; so refusals that follow from it go on record."""
    for by_step in (False, True):
        stream = StreamState()
        stream.close(by_step=by_step)
        assert stream.closed_by_step is by_step


def test_nothing_goes_into_a_block_that_a_close_follows() -> None:
    stream = StreamState()
    stream.open_values = Values("a", "", 0, None)
    stream.close(by_step=False)
    assert stream.open_values is None


def test_a_block_that_was_taken_is_kept_no_longer_than_until_it_is_durable() -> None:
    stream = StreamState()
    for is_open in (True, False):
        stream.open_values = Values("a", "", 0, None, is_open=is_open)
        stream.advance(1)
        assert (stream.open_values is not None) == is_open


def test_buffered_values_count_at_once_and_move_the_tail_when_they_are_durable() -> None:
    stream = StreamState(7, values=7, size=70)
    stream.written(10)
    assert (stream.values, stream.bytes, stream.tail) == (8, 80, 7)
    stream.advance(8)
    assert (stream.values, stream.bytes, stream.tail) == (8, 80, 8)
