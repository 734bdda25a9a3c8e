"""What a write is refused for, value by value, and how a refusal comes back at the same write of a replay."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.streams.limits import Limits, refusal
from dbosflow._store.step import History
from dbosflow.config import Settings
from dbosflow.errors import StreamBackPressureError, StreamError, StreamFullError, StreamValueTooLargeError
from tests.runtime.hand_made import recorded


@pytest.mark.parametrize(
    ("settings", "values", "written", "size", "refused"),
    [
        ({"value_bytes": 10}, 0, 0, 10, None),
        ({"value_bytes": 10}, 0, 0, 11, StreamValueTooLargeError),
        ({"stream_values": 3}, 2, 0, 1, None),
        ({"stream_values": 3}, 3, 0, 1, StreamFullError),
        ({"stream_bytes": 100}, 0, 90, 10, None),
        ({"stream_bytes": 100}, 0, 90, 11, StreamFullError),
        ({"value_bytes": 10, "stream_values": 3, "stream_bytes": 100}, 3, 100, 11, StreamValueTooLargeError),
        ({}, 10**9, 10**12, 1000, None),
    ],
)
def test_a_limit_of_a_stream_may_be_reached_and_not_passed(
    settings: dict[str, int], values: int, written: int, size: int, refused: type[StreamError] | None
) -> None:
    found = refusal(Settings(**settings), ("wf", "out"), values, written, size)  # type: ignore[arg-type]
    assert (None if found is None else type(found)) is refused
    if found is not None:
        assert found.workflow_id == "wf"
        assert "'out'" in str(found)


@given(st.integers(1, 20), st.integers(1, 200), st.lists(st.integers(1, 40), max_size=40))
def test_a_stream_takes_no_more_values_and_bytes_than_its_limits(most: int, most_bytes: int, sizes: list[int]) -> None:
    """Whatever comes, what is taken fits, and what is refused would not have."""
    limits = Limits("wf", Settings(stream_values=most, stream_bytes=most_bytes), History())
    taken = written = 0
    for size in sizes:
        if limits.refusal("out", taken, written, size) is None:
            taken, written = taken + 1, written + size + 1
            assert taken <= most
            assert written - 1 <= most_bytes
        else:
            assert taken == most or written + size > most_bytes


PLACES = st.tuples(st.sampled_from("ab"), st.sampled_from(["", "branch#0"]), st.integers(0, 3))


@given(st.lists(PLACES, max_size=12))
def test_a_replay_is_refused_at_the_same_writes_as_often_and_then_no_more(places: list[tuple[str, str, int]]) -> None:
    """A body may try again at once: each refusal at one place has a record of its own."""
    live, past = Limits("wf", Settings(), History()), History()
    for number, (key, producer, count) in enumerate(places):
        record = live.record(key, producer, count, StreamFullError("wf", key, f"refusal {number}"))
        assert record.kind == RecordKind.REFUSED
        assert record.key not in past.records
        past.records[record.key] = recorded(record.key, RecordKind.REFUSED, error=record.error)
    replay = Limits("wf", Settings(), past)
    for number, (key, producer, count) in enumerate(places):
        assert replay.any_recorded
        error = replay.recorded(key, producer, count)
        assert isinstance(error, StreamFullError)
        assert str(error) == f"refusal {number}"
    assert not replay.any_recorded
    assert all(replay.recorded(*place) is None for place in places)


def test_a_refusal_after_replayed_ones_has_another_record() -> None:
    """It stands beside them: under one of their keys it would not be written."""
    first = Limits("wf", Settings(), History()).record("a", "", 2, StreamFullError("wf", "a", "full"))
    replay = Limits(
        "wf", Settings(), History(records={first.key: recorded(first.key, RecordKind.REFUSED, error=first.error)})
    )
    replay.recorded("a", "", 2)
    assert replay.record("a", "", 2, StreamFullError("wf", "a", "full")).key != first.key


def test_records_of_steps_are_no_refusals_of_writes() -> None:
    assert not Limits("wf", Settings(), History(records={"work#0": recorded("work#0")})).any_recorded


def test_a_refusal_whose_class_is_no_stream_error_is_one_all_the_same() -> None:
    """The code may have changed; an ``except StreamError`` around the write catches it as before."""
    key = Limits("wf", Settings(), History()).record("a", "", 0, StreamFullError("wf", "a", "full")).key
    gone = '{"type": "GoneError", "module": "nowhere", "message": "was full", "args": null}'
    replay = Limits("wf", Settings(), History(records={key: recorded(key, RecordKind.REFUSED, error=gone)}))
    error = replay.recorded("a", "", 0)
    assert type(error) is StreamError
    assert "was full" in str(error)


def test_back_pressure_names_how_long_was_waited() -> None:
    error = Limits("wf", Settings(buffer_timeout=2.5), History()).back_pressure("out")
    assert isinstance(error, StreamBackPressureError)
    assert "within 2.5 s" in str(error)
