"""A batch over runs made by hand: places given at the last moment, kept only if durable, and every split."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.journal.batch import Batch
from dbosflow._runtime.journal.slice import Slice, take_out
from dbosflow._runtime.runs.buffer import Buffer
from dbosflow._runtime.runs.entries import (
    MOST_REFUSALS,
    AttemptRollback,
    Barrier,
    Close,
    Ending,
    Entry,
    LoopItem,
    Record,
    Start,
    Values,
)
from dbosflow._runtime.runs.state import RunStopped
from dbosflow._runtime.streams.state import StreamState
from dbosflow._runtime.streams.statistics import StreamStatistics
from dbosflow._store.cancel_request import CANCELLED, CancelRequest
from dbosflow._store.notify import queue_topic, stream_topic, workflow_topic
from dbosflow._store.step import History
from dbosflow.types import WorkflowStatus
from tests.protocol.schedules import columns
from tests.runtime.hand_made import make_run

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from dbosflow._runtime.journal.source import Source
    from dbosflow._runtime.streams.writes import RunStreams
    from dbosflow.errors import WorkflowError


@dataclass(eq=False)
class SourceByHand:
    """A run, as the journal sees it, whose answers a test gives."""

    workflow_id: str = "wf"
    seq: int = 0
    turn: int = 0
    epoch: int = 1
    inputs: Collection[str] = ()
    history: History = field(default_factory=History)
    buffer: Buffer = field(default_factory=lambda: Buffer(10**6))
    stopping: RunStopped | None = None
    superseded: bool = False
    contradiction: WorkflowError | None = None
    request: CancelRequest | None = None
    is_awaited: bool = False
    holds_back: bool = False
    age: float = 0.5
    delivered: list[Entry] = field(default_factory=list)

    def __post_init__(self) -> None:
        has_streams = self.history.tails or self.history.uncommitted
        self._streams = self._made() if has_streams else None

    def _made(self) -> RunStreams:
        return make_run(self.history, inputs=self.inputs).streams

    @property
    def streams(self) -> RunStreams:
        """What it writes to streams."""
        if self._streams is None:
            self._streams = self._made()
        return self._streams

    @property
    def written_streams(self) -> RunStreams | None:
        """``streams``, if it has written to any."""
        return self._streams

    def committed(self, entries: Sequence[Entry]) -> None:
        """Durable."""
        self.delivered += entries

    def stop(self, why: str) -> None:
        """Stopped."""
        self.stopping = RunStopped(why)


def _is_one(source: SourceByHand) -> Source:
    return source  # what the journal asks for, and mypy sees that it is there


def values(source: SourceByHand, key: str, *texts: str) -> Values:
    """Values of the body for a stream that its run knows, as it does once it is written to."""
    source.streams.by_key.setdefault(key, StreamState())
    return Values(key, "", 0, None, list(texts))


def record(key: str, **rest: Any) -> Record:
    """A step's."""
    return Record(key, RecordKind.STEP, output="1", **rest)


def start(workflow_id: str, decided: list[Any] | None = None, **rest: Any) -> Start:
    """A start whose decision is noted."""
    decisions = [] if decided is None else decided
    return Start(workflow_id, "flow", "{}", rest.pop("queue", ""), 0, decisions.append, **rest)


def column(batch: Batch[Any], name: str) -> list[Any]:
    """One column of a batch's rows, by its parameter's name."""
    return list(columns(batch.rows()).get(name, ()))


def batch(*slices: Slice[SourceByHand], starts: Sequence[Start] = ()) -> Batch[SourceByHand]:
    """A batch of these."""
    return Batch(list(slices), list(starts))


SUCCEEDED = Ending(WorkflowStatus.SUCCEEDED)


# -- seq, turn and offsets -------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 3), max_size=6), st.integers(0, 5), st.integers(0, 5))
def test_records_are_numbered_without_gaps_and_those_of_one_commit_share_a_turn(
    commits: list[int], seq: int, turn: int
) -> None:
    """A commit without a record takes no turn, for a replay would wait for it in vain."""
    source, places = SourceByHand(seq=seq, turn=turn), list[tuple[int, int]]()
    for number, count in enumerate(commits):
        part = Slice(source, [record(f"work#{number}.{one}") for one in range(count)] + [AttemptRollback("other#0")])
        one = batch(part)
        places += zip(column(one, "record_seq"), column(one, "record_turn"), strict=True)
        part.acknowledged(set())
    with_records = [count for count in commits if count]
    expected = [turn + number for number, count in enumerate(with_records) for _ in range(count)]
    assert [place for place, _ in places] == list(range(seq, seq + sum(commits)))
    assert [place for _, place in places] == expected
    assert (source.seq, source.turn) == (seq + sum(commits), turn + len(with_records))


def test_a_batch_that_is_sent_again_has_the_same_rows() -> None:
    """After a lost answer the witness row is looked for under the key that was sent."""
    source = SourceByHand(history=History(tails={"out": 4}), seq=2, turn=1)
    one = batch(Slice(source, [record("work#0"), values(source, "out", "1")]), starts=[start("child")])
    first = one.rows()
    assert one.rows() == first
    assert (source.seq, source.turn, source.streams.by_key["out"].tail) == (2, 1, 4)


def test_blocks_of_the_next_batch_begin_behind_what_was_acknowledged() -> None:
    source = SourceByHand(history=History(tails={"out": 4}))
    offsets = []
    for _ in range(2):
        part = Slice(source, [values(source, "out", "1", "2"), values(source, "new", "3")])
        offsets.append(column(batch(part), "block_offset"))
        part.acknowledged(set())
    assert offsets == [[4, 0], [6, 1]]


def test_a_block_has_the_turn_of_the_last_record_before_it_or_with_it() -> None:
    """So what stands up to a turn is what a crash before the next record would have left."""
    source = SourceByHand(turn=0)
    turns = []
    slices: list[list[Entry]] = [
        [values(source, "out", "1")],
        [values(source, "out", "2"), record("a#0")],
        [values(source, "out", "3")],
    ]
    for entries in slices:
        part = Slice(source, entries)
        turns += column(batch(part), "block_turn")
        part.acknowledged(set())
    assert turns == [-1, 0, 0]


def test_a_dropped_slice_leaves_its_run_as_it_was() -> None:
    source = SourceByHand(history=History(tails={"out": 4}, uncommitted=[("work#0@1.0", "out", 2, 2)]))
    for _ in range(2):
        part = Slice(source, [record("work#0", attempt="1.1"), values(source, "out", "1")])
        one = batch(part)
        assert column(one, "block_offset") == [4, 5]
        assert column(one, "block_kind") == ["rollback", "values"]
        assert column(one, "record_seq") == [0]
    assert source.streams.uncommitted.producers() == ["work#0@1.0"]


def test_a_slice_of_records_has_nothing_to_do_with_streams() -> None:
    part = Slice(SourceByHand(), [record("work#0"), Barrier(None)])  # type: ignore[arg-type]
    assert part.frames is None
    assert part.blocks == ()


def test_a_dead_letter_is_written_with_its_items_record() -> None:
    source = SourceByHand()
    letter = values(source, "dead", '"bad"')
    one = batch(Slice(source, [record("loop#0/3", loop_item=LoopItem("loop#0", 3, 4), dead_letter=letter)]))
    assert column(one, "block_key") == ["dead"]
    assert (column(one, "record_loop_key"), column(one, "record_loop_offset"), column(one, "record_loop_next")) == (
        ["loop#0"],
        [3],
        [4],
    )


def test_a_batch_knows_whether_a_run_in_it_hears_of_its_cancellation_already() -> None:
    for request in (None, CANCELLED):
        one = batch(Slice(SourceByHand("a"), [record("x#0")]), Slice(SourceByHand("b", request=request), []))
        assert one.rows().aware is (request is not None)


# -- ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "ends"),
    [
        (SUCCEEDED, ["complete"]),
        (Ending(WorkflowStatus.CANCELLED), ["cancelled"]),
        (Ending(WorkflowStatus.BLOCKED), []),
        (Ending(WorkflowStatus.FAILED, refusals=MOST_REFUSALS), []),
    ],
    ids=["succeeded", "cancelled", "blocked", "refused too often"],
)
def test_an_end_closes_streams_and_inputs_if_it_ends_the_workflow(ending: Ending, ends: list[str]) -> None:
    source = SourceByHand(history=History(tails={"out": 4}), inputs=("in",))
    one = batch(Slice(source, [ending]))
    assert column(one, "end_status") == [ending.status]
    assert column(one, "block_kind") == ends
    assert column(one, "input_key") == ["in"] * len(ends)
    assert one.closes_inputs == bool(ends)


def test_an_end_that_does_not_come_true_leaves_the_rest_of_its_slice() -> None:
    source = SourceByHand()
    rest = Slice(source, [record("work#0"), SUCCEEDED]).without_end()
    assert rest is not None
    assert rest.ending is None
    assert column(batch(rest), "record_key") == ["work#0"]
    assert Slice(source, [SUCCEEDED]).without_end() is None


# -- acknowledged ----------------------------------------------------------------------------------------------------


def test_a_run_hears_of_all_entries_of_its_slice_once_they_are_durable() -> None:
    source = SourceByHand()
    entries: list[Entry] = [record("work#0"), values(source, "out", "1"), Close("out", "", 1, None)]
    part = Slice(source, entries)
    assert source.delivered == []
    part.acknowledged(set())
    assert source.delivered == entries
    assert source.streams.by_key["out"].ended


def test_a_child_is_new_once_though_its_id_stands_in_the_statement_twice() -> None:
    decided: list[Any] = []
    entries = [record(f"child#{number}", start=start("child", decided)) for number in range(2)]
    entries.append(record("other#0", start=start("taken", decided)))
    started = {"child", "unknown"}
    Slice(SourceByHand(), entries).acknowledged(started)
    assert decided == [True, False, False]
    assert started == {"unknown"}


def test_of_starts_of_one_id_the_statement_has_the_first() -> None:
    """Who is told that its start is new is whose row it is; and no end may join the row of another."""
    first, second, third = start("same"), start("same"), start("same")
    for one in (first, second):
        one.ending = Ending(WorkflowStatus.SUCCEEDED)
    parts = [Slice(SourceByHand(one), [record("child#0", start=s)]) for one, s in (("a", first), ("b", second))]
    rows = Batch(parts, [third]).rows()
    assert [row[0] for row in rows.starts] == ["same"]
    assert len(rows.outcomes) == 1
    assert (first.outcome is not None, second.outcome) == (True, None)


def test_an_id_is_taken_once_out_of_those_that_a_statement_inserted() -> None:
    started = {"a"}
    assert [take_out(started, "a"), take_out(started, "a"), take_out(started, "b")] == [True, False, False]


# -- news ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "topics"),
    [
        ([record("other#0")], []),
        ([record("child#0", start=start("child"))], []),
        ([record("child#0", start=start("child", queue="q", owned=False))], [queue_topic("q")]),
        ([record("child#0", start=start("child", ending=Ending(WorkflowStatus.FAILED)))], [workflow_topic("child")]),
        ([record("work#0", attempt="1.0")], [stream_topic("wf", "out")]),
        ([SUCCEEDED], [stream_topic("wf", "out"), workflow_topic("wf")]),
        ([Ending(WorkflowStatus.BLOCKED)], [workflow_topic("wf")]),
    ],
    ids=["record", "own child", "child in a queue", "ended child", "commit of values", "end", "end of the pass"],
)
def test_a_durable_slice_is_news_for_readers_queues_and_waiters(entries: list[Entry], topics: list[str]) -> None:
    past = History(tails={"out": 4}, uncommitted=[("work#0@1.0", "out", 2, 2)])
    assert list(Slice(SourceByHand(history=past), entries).topics()) == topics


@pytest.mark.parametrize(
    ("entries", "is_awaited", "expected"),
    [
        ([record("work#0")], False, False),
        ([record("child#0", start=start("child"))], False, True),
        ([record("child#0", start=start("child", ending=Ending(WorkflowStatus.FAILED)))], False, False),
        ([SUCCEEDED], False, True),
        ([SUCCEEDED], True, False),
    ],
    ids=["record", "child", "ended child", "end", "end that is awaited here"],
)
def test_other_processes_may_wait_for_children_and_for_ends_that_nobody_awaits_here(
    entries: list[Entry],
    is_awaited: bool,  # noqa: FBT001 (a cell of the table)
    expected: bool,  # noqa: FBT001 (the same)
) -> None:
    assert Slice(SourceByHand(is_awaited=is_awaited), entries).is_awaited_elsewhere == expected


def test_other_processes_may_wait_for_values() -> None:
    source = SourceByHand(is_awaited=True)
    assert Slice(source, [values(source, "out", "1")]).is_awaited_elsewhere


def test_statistics_count_blocks_and_the_time_to_a_runs_first_value_once() -> None:
    source, statistics = SourceByHand(), StreamStatistics()
    for _ in range(2):
        one = batch(Slice(source, [values(source, "out", "1", "2"), values(source, "other", "3")]))
        one.count_in(statistics, 0.1)
        one.slices[0].acknowledged(set())
    batch(Slice(source, [record("work#0")])).count_in(statistics, 0.1)
    found = statistics.stats()
    assert (found.values, found.blocks) == (6, 4)
    assert (found.first_value.count, found.flush.count) == (1, 2)


# -- parts of a batch ------------------------------------------------------------------------------------------------


def names(one: Batch[SourceByHand]) -> list[str]:
    """The runs and starts of a batch."""
    return [part.run.workflow_id for part in one.slices] + [begun.workflow_id for begun in one.starts]


def test_a_batch_without_some_runs_keeps_the_others_the_starts_and_what_is_known_of_its_sending() -> None:
    """Whole, it may have arrived all the same."""
    one, other = SourceByHand("one"), SourceByHand("other")
    whole = batch(Slice(one, [record("a#0")]), Slice(other, [record("b#0")]), starts=[start("start")])
    whole.sent = 2
    rest = whole.without({one})
    assert names(rest) == ["other", "start"]
    assert rest.sent == 2
    assert names(whole) == ["one", "other", "start"]
    assert whole.without({one, other}).empty is False
    assert batch(Slice(one, [])).without({one}).empty


def test_a_refused_batch_is_split_into_single_slices_and_starts() -> None:
    sources = [SourceByHand(name) for name in "ab"]
    whole = batch(*(Slice(source, [record("x#0")]) for source in sources), starts=[start("c"), start("d")])
    parts = whole.split()
    assert [names(part) for part in parts] == [["a"], ["b"], ["c"], ["d"]]
    assert all(part.sent == 0 for part in parts)


@pytest.mark.parametrize(
    ("closing", "expected"),
    [
        ("", [["a"], ["b"], ["start"]]),
        ("b", [["a", "start"], ["b"]]),
        ("ab", [["start"], ["a"], ["b"]]),
    ],
)
def test_ends_of_inputs_are_split_off_so_that_only_they_are_tried_again(
    closing: str, expected: list[list[str]]
) -> None:
    """Outside writers of them may be faster; what else is in the batch need not wait for that."""
    slices = [
        Slice(SourceByHand(name, inputs=("in",)), [SUCCEEDED if name in closing else record("x#0")]) for name in "ab"
    ]
    whole = batch(*slices, starts=[start("start")])
    assert [names(part) for part in whole.split_off_inputs()] == expected


def test_where_only_ends_of_inputs_are_in_a_batch_each_is_tried_by_itself() -> None:
    slices = [Slice(SourceByHand(name, inputs=("in",)), [SUCCEEDED]) for name in "ab"]
    assert [names(part) for part in batch(*slices).split_off_inputs()] == [["a"], ["b"]]


@pytest.mark.parametrize(
    ("entry", "is_stopped", "superseded", "expected"),
    [
        (record("x#0"), False, False, []),
        (record("x#0"), True, False, ["wf"]),
        (SUCCEEDED, True, False, []),
        (SUCCEEDED, True, True, ["wf"]),
        (SUCCEEDED, False, True, []),
    ],
    ids=["active", "stopped", "its end", "end of a superseded pass", "not stopped"],
)
def test_a_stopped_run_is_dropped_but_for_its_end_unless_a_new_pass_takes_its_place(
    entry: Entry,
    is_stopped: bool,  # noqa: FBT001 (a cell of the table)
    superseded: bool,  # noqa: FBT001 (the same)
    expected: list[str],
) -> None:
    source = SourceByHand(superseded=superseded)
    one = batch(Slice(source, [entry]))
    if is_stopped:
        source.stop("lost")
    assert [run.workflow_id for run in one.stopped_runs()] == expected
