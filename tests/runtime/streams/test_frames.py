"""Frames against the rules of commit and rollback: each kind of record and producer, any order."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.runs.checksums import NOTHING, checksum
from dbosflow._runtime.runs.entries import Close, Ending, Record, Values
from dbosflow._runtime.streams.frames import Frames
from dbosflow._runtime.streams.state import StreamState
from dbosflow._runtime.streams.uncommitted import Uncommitted
from dbosflow._store.batch_rows import InputRow, TailRow
from dbosflow.failures import dump_error
from dbosflow.types import FrameKind, WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


@dataclass
class Streams:
    """The streams of a run, as frames ask for them."""

    by_key: dict[str, StreamState] = field(default_factory=lambda: {key: StreamState() for key in "abc"})
    uncommitted: Uncommitted = field(default_factory=Uncommitted)
    inputs: Collection[str] = ()
    checksums: dict[tuple[str, str], int | None] = field(default_factory=dict)
    workflow_id: str = "wf"
    epoch: int = 1

    def checksum(self, key: str, producer: str) -> int | None:
        """Of what the producer has durable."""
        return self.checksums.get((key, producer), NOTHING)


def values(key: str, producer: str, *texts: str, seq: int = 0) -> Values:
    """Values of the body, of a branch, or, where the name has an ``@``, of an attempt."""
    _, at, label = producer.rpartition("@")
    return Values(key, producer, seq, label if at else None, list(texts))


def close(key: str, producer: str = "") -> Close:
    """A close by that producer."""
    _, at, label = producer.rpartition("@")
    return Close(key, producer, 0, label if at else None)


def shown(frames: Frames) -> list[tuple[str, int, str, str | None]]:
    """The blocks in order: stream, offset, kind, values."""
    return [(block.key, block.offset, str(block.kind), block.values) for block in frames.blocks]


ENDED = Ending(WorkflowStatus.SUCCEEDED)
FAILED = dump_error(ValueError("no"))


# -- places ----------------------------------------------------------------------------------------------------------


def test_a_block_starts_at_the_acknowledged_tail_and_the_next_one_behind_it() -> None:
    streams = Streams({"a": StreamState(5), "b": StreamState()})
    frames = Frames(streams, 0)
    frames.values(values("a", "", "1", "2"))
    frames.values(values("b", "", "3"))
    frames.values(values("a", "", "4"))
    assert shown(frames) == [("a", 5, "values", "[1,2]"), ("b", 0, "values", "[3]"), ("a", 7, "values", "[4]")]
    assert frames.tails == {"a": 8, "b": 1}
    assert streams.by_key["a"].tail == 5, "moved on before it was acknowledged"


def test_the_rows_of_a_batch_state_the_tails_that_were_assumed() -> None:
    """The statement writes nothing where a stream's tail is another one."""
    frames = Frames(Streams({"a": StreamState(5)}), 0)
    frames.values(values("a", "", "1", "2"))
    frames.values(values("a", "", "3"))
    assert frames.assumed == [TailRow("wf", "a", 5)]


@given(st.lists(st.lists(st.integers(), min_size=1, max_size=4), min_size=1, max_size=6), st.data())
def test_a_checksum_is_that_of_all_values_however_they_are_packed(packed: list[list[int]], data: st.DataObject) -> None:
    """In blocks, in slices, in passes: a replay compares it with its own, of one value after the other."""
    texts = [[str(value) for value in block] for block in packed]
    durable = data.draw(st.integers(0, len(texts) - 1))
    before = NOTHING
    for text in (text for block in texts[:durable] for text in block):
        before = checksum(text, before)
    frames = Frames(Streams(checksums={("a", ""): before}), 0)
    for block in texts[durable:]:
        frames.values(values("a", "", *block))
    whole = NOTHING
    for text in (text for block in texts for text in block):
        whole = checksum(text, whole)
    assert frames.blocks[-1].checksum == whole
    assert frames.checksums == {("a", ""): whole}


def test_a_checksum_stays_unknown_where_older_code_has_written() -> None:
    frames = Frames(Streams(checksums={("a", ""): None}), 0)
    frames.values(values("a", "", "1"))
    frames.values(values("b", "", "1"))
    assert [block.checksum for block in frames.blocks] == [None, checksum("1", NOTHING)]


# -- commit and rollback ---------------------------------------------------------------------------------------------

WRITERS = ("work#0@1.0", "work#0@1.1", "work#0@*", "other#0@1.0", "loop#0/3@1.0", "loop#0/work#0@1.0", "")


@pytest.mark.parametrize(
    ("record", "committed", "rolled_back"),
    [
        (Record("work#0", RecordKind.STEP, attempt="1.1"), ["work#0@1.1", "work#0@*"], ["work#0@1.0"]),
        (Record("work#0", RecordKind.STEP, attempt="1.7"), ["work#0@*"], ["work#0@1.0", "work#0@1.1"]),
        (
            Record("work#0", RecordKind.STEP, attempt="1.1", error=FAILED),
            [],
            ["work#0@1.0", "work#0@1.1", "work#0@*"],
        ),
        (Record("work#0@1.1", RecordKind.ATTEMPT, error=FAILED), [], ["work#0@1.1"]),
        (Record("work#0/given-up", RecordKind.GIVEN_UP), [], ["work#0@1.0", "work#0@1.1", "work#0@*"]),
        (Record("loop#0/given-up", RecordKind.GIVEN_UP), [], ["loop#0/3@1.0"]),
        (Record("loop#0", RecordKind.FOR_EACH), [], ["loop#0/3@1.0"]),
        (Record("loop#0/3", RecordKind.STEP, attempt="1.0"), ["loop#0/3@1.0"], []),
        (Record("unknown#0", RecordKind.STEP, attempt="1.0"), [], []),
        (Record("work#0", RecordKind.SLEEP), [], []),
    ],
    ids=[
        "success commits its attempt, and what is shared",
        "success of another attempt",
        "failure of the step",
        "failure of an attempt",
        "cancelled step",
        "cancelled loop",
        "end of a loop",
        "success of an item",
        "another step",
        "no step",
    ],
)
def test_a_record_decides_about_what_its_own_attempts_wrote(
    record: Record, committed: list[str], rolled_back: list[str]
) -> None:
    streams = Streams({str(number): StreamState() for number in range(len(WRITERS))})
    frames = Frames(streams, 0)
    for key, producer in enumerate(WRITERS):
        frames.values(values(str(key), producer, "1", "2"))
    frames.commit_or_roll_back(record)
    back = [block for block in frames.blocks if block.kind == FrameKind.ROLLBACK]
    assert [block.producer for block in back] == rolled_back
    assert all(json.loads(block.values or "") == [[0, 2]] for block in back)
    assert {block.attempt for block in back} == {name.rpartition("@")[2] for name in rolled_back}
    assert frames.committed == {str(WRITERS.index(name)) for name in committed}
    assert set(frames.uncommitted.producers()) == set(WRITERS) - {""} - {*committed, *rolled_back}


def test_a_new_attempt_rolls_back_earlier_ones_and_leaves_what_is_shared() -> None:
    """What all attempts share is gone on with, not written again."""
    frames = Frames(Streams(), 0)
    for key, producer in zip("abc", ("work#0@1.0", "work#0@*", "other#0@1.0"), strict=True):
        frames.values(values(key, producer, "1"))
    frames.roll_back_attempts("work#0")
    assert shown(frames)[3:] == [("a", 1, "rollback", "[[0, 1]]")]
    assert frames.uncommitted.producers() == ["work#0@*", "other#0@1.0"]


def test_a_rollback_names_the_ranges_of_its_attempt_among_values_of_others() -> None:
    frames = Frames(Streams(), 0)
    for producer in ("work#0@1.0", "", "work#0@1.0", "work#0@1.0"):
        frames.values(values("a", producer, "1", "2"))
    frames.commit_or_roll_back(Record("work#0@1.0", RecordKind.ATTEMPT, error=FAILED))
    assert shown(frames)[-1] == ("a", 8, "rollback", "[[0, 2], [4, 8]]")


def test_what_an_earlier_slice_wrote_is_rolled_back_and_the_runs_own_view_stays() -> None:
    """A slice may be dropped, and be built anew: until it is acknowledged, the run knows of no rollback."""
    streams = Streams({"a": StreamState(3)}, Uncommitted([("work#0@1.0", "a", 1, 2)]))
    frames = Frames(streams, 0)
    frames.commit_or_roll_back(Record("work#0@1.0", RecordKind.ATTEMPT, error=FAILED))
    assert shown(frames) == [("a", 3, "rollback", "[[1, 3]]")]
    assert not frames.uncommitted
    assert streams.uncommitted.producers() == ["work#0@1.0"]


def test_readers_have_news_of_a_stream_whose_values_are_committed_without_a_block() -> None:
    streams = Streams(uncommitted=Uncommitted([("work#0@1.0", "a", 0, 2)]))
    frames = Frames(streams, 0)
    frames.commit_or_roll_back(Record("work#0", RecordKind.STEP, attempt="1.0"))
    frames.values(values("b", "", "1"))
    assert set(frames.touched()) == {"a", "b"}


# -- ends of streams -------------------------------------------------------------------------------------------------

SUCCESS = Record("work#0", RecordKind.STEP, attempt="1.0")
FAILURE = Record("work#0@1.0", RecordKind.ATTEMPT, error=FAILED)


def test_a_close_of_a_stream_that_no_attempt_has_written_to_ends_it_at_once() -> None:
    frames = Frames(Streams(), 0)
    frames.values(values("b", "work#0@1.0", "1"))
    frames.close(close("a"))
    assert shown(frames)[1:] == [("a", 0, "complete", None)]
    assert frames.ended == {"a"}


@pytest.mark.parametrize("record", [SUCCESS, FAILURE], ids=["committed", "rolled back"])
def test_the_end_of_a_stream_comes_behind_the_fate_of_its_uncommitted_values(record: Record) -> None:
    """Nothing may follow a terminal frame, a rollback neither."""
    frames = Frames(Streams(), 0)
    frames.values(values("a", "work#0@1.0", "1"))
    frames.close(close("a"))
    assert frames.ended == set()
    frames.commit_or_roll_back(record)
    assert shown(frames)[-1][2] == "complete"
    assert frames.ended == {"a"}
    assert frames.reopened == set()


def test_an_end_waits_for_the_last_of_several_attempts() -> None:
    frames = Frames(Streams(), 0)
    for producer in ("work#0@1.0", "other#0@1.0"):
        frames.values(values("a", producer, "1"))
    frames.close(close("a"))
    frames.commit_or_roll_back(SUCCESS)
    assert frames.ended == set()
    frames.commit_or_roll_back(Record("other#0", RecordKind.STEP, attempt="1.0"))
    assert frames.ended == {"a"}


def test_an_attempts_wish_to_close_a_stream_comes_true_with_its_success() -> None:
    frames = Frames(Streams(), 0)
    frames.close(close("a", "work#0@1.0"))
    assert shown(frames) == []
    frames.commit_or_roll_back(SUCCESS)
    assert shown(frames) == [("a", 0, "complete", None)]


def test_an_attempts_wish_to_close_a_stream_is_void_with_its_failure() -> None:
    """The stream is open again; there is nothing to roll back where it has written no value."""
    frames = Frames(Streams(), 0)
    frames.close(close("a", "work#0@1.0"))
    frames.commit_or_roll_back(FAILURE)
    assert shown(frames) == []
    assert frames.reopened == {"a"}
    assert not frames.uncommitted.held_closes


def test_the_bodys_own_close_outlives_the_failure_of_an_attempt_that_wrote_there() -> None:
    frames = Frames(Streams(), 0)
    frames.values(values("a", "work#0@1.0", "1"))
    frames.close(close("a"))
    frames.commit_or_roll_back(FAILURE)
    assert [block.kind for block in frames.blocks] == [FrameKind.VALUES, FrameKind.ROLLBACK, FrameKind.COMPLETE]


# -- the end of the workflow -----------------------------------------------------------------------------------------


def test_the_end_of_a_workflow_rolls_back_what_is_uncommitted_and_ends_each_open_stream() -> None:
    streams = Streams({"a": StreamState(), "b": StreamState(4, closed=True), "c": StreamState(2)}, inputs=("in",))
    frames = Frames(streams, 0)
    frames.values(values("a", "work#0@1.0", "1"))
    frames.end(ENDED)
    assert shown(frames)[1:] == [
        ("a", 1, "rollback", "[[0, 1]]"),
        ("a", 2, "complete", None),
        ("c", 2, "complete", None),
    ]
    assert frames.inputs == [InputRow("wf", "in", FrameKind.COMPLETE, None, 0, 1)]
    assert not frames.uncommitted


def test_no_stream_is_ended_twice_by_a_close_and_the_end_of_the_workflow() -> None:
    frames = Frames(Streams({"a": StreamState(), "b": StreamState()}), 0)
    frames.close(close("a"))
    frames.values(values("b", "work#0@1.0", "1"))
    frames.close(close("b"))
    frames.end(ENDED)
    ends = [key for key, _, kind, _ in shown(frames) if kind == "complete"]
    assert sorted(ends) == ["a", "b"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (WorkflowStatus.SUCCEEDED, FrameKind.COMPLETE),
        (WorkflowStatus.FAILED, FrameKind.ERROR),
        (WorkflowStatus.CANCELLED, FrameKind.CANCELLED),
    ],
)
def test_a_stream_ends_as_its_workflow_does_and_without_its_traceback(status: WorkflowStatus, kind: FrameKind) -> None:
    frames = Frames(Streams({"a": StreamState()}, inputs=("in",)), 0)
    frames.end(Ending(status, error=FAILED))
    (block,) = frames.blocks
    assert block.kind == kind
    (end,) = frames.inputs
    assert (end.key, end.kind, end.values) == ("in", kind, block.values)
    error = json.loads(block.values or "")
    assert error["message"] == "no"
    assert "traceback" not in error


def test_an_end_that_was_refused_twice_leaves_out_streams_that_nobody_knows_of() -> None:
    """The key of such a stream may be what the database refuses."""
    frames = Frames(Streams({"new": StreamState(), "old": StreamState(1)}), 0)
    frames.end(Ending(WorkflowStatus.FAILED, refusals=2))
    assert [block.key for block in frames.blocks] == ["old"]


# -- every order -----------------------------------------------------------------------------------------------------

STEPS = st.sampled_from(["work#0", "other#0", "loop#0/3"])
ATTEMPTS = st.sampled_from(["1.0", "1.1", "*"])
ENTRIES = st.lists(
    st.one_of(
        st.tuples(st.just("values"), st.sampled_from("ab"), STEPS, ATTEMPTS, st.integers(1, 3)),
        st.tuples(st.just("body"), st.sampled_from("ab"), st.integers(1, 3)),
        st.tuples(st.just("success"), STEPS, ATTEMPTS.filter(lambda name: name != "*")),
        st.tuples(st.just("failure"), STEPS),
        st.tuples(st.just("attempt"), STEPS, ATTEMPTS),
        st.tuples(st.just("new attempt"), STEPS),
    ),
    max_size=25,
)


def apply(frames: Frames, entry: Sequence[object]) -> None:
    match entry:
        case ("values", str(key), str(step), str(label), int(count)):
            frames.values(values(key, f"{step}@{label}", *["1"] * count))
        case ("body", str(key), int(count)):
            frames.values(values(key, "", *["1"] * count))
        case ("success", str(step), str(label)):
            frames.commit_or_roll_back(Record(step, RecordKind.STEP, attempt=label))
        case ("failure", str(step)):
            frames.commit_or_roll_back(Record(step, RecordKind.STEP, error=FAILED))
        case ("attempt", str(step), str(label)):
            frames.commit_or_roll_back(Record(f"{step}@{label}", RecordKind.ATTEMPT, error=FAILED))
        case ("new attempt", str(step)):
            frames.roll_back_attempts(step)


def offsets(ranges: object) -> set[int]:
    assert isinstance(ranges, list)
    return {offset for first, after in ranges for offset in range(first, after)}


@given(ENTRIES)
def test_every_value_has_one_fate_in_every_order_of_writes_and_records(entries: list[Sequence[object]]) -> None:
    """A body's values stand. An attempt's are committed, rolled back once, or uncommitted; and none is at the end."""
    streams = Streams({"a": StreamState(), "b": StreamState()})
    frames = Frames(streams, 0)
    committed: set[tuple[str, int]] = set()
    for entry in entries:
        before = frames.uncommitted.copy()
        apply(frames, entry)
        if entry[0] == "success":
            for producer in (f"{entry[1]}@{entry[2]}", f"{entry[1]}@*"):
                committed |= {(key, one) for key, ranges in before.pop(producer) for one in offsets(ranges)}
    frames.end(ENDED)
    tails = {"a": 0, "b": 0}
    by_attempts, rolled_back = set[tuple[str, int]](), list[tuple[str, int]]()
    for block in frames.blocks:
        assert block.offset == tails[block.key], "a gap, or two blocks at one place"
        tails[block.key] += block.value_count
        if block.kind == FrameKind.VALUES and block.attempt is not None:
            by_attempts |= {(block.key, block.offset + number) for number in range(block.value_count)}
        elif block.kind == FrameKind.ROLLBACK:
            rolled_back += [(block.key, one) for one in offsets(json.loads(block.values or ""))]
    assert len(rolled_back) == len(set(rolled_back)), "rolled back twice"
    assert by_attempts == committed | set(rolled_back)
    assert not committed & set(rolled_back)
    assert not frames.uncommitted
    assert [block.kind for block in frames.blocks[-2:]] == [FrameKind.COMPLETE, FrameKind.COMPLETE]
