"""The streams of one run: what goes into which block, what a replay passes over, and what is refused and recorded."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.runs.checksums import NOTHING, checksum
from dbosflow._runtime.runs.entries import AttemptRollback, Close, Entry, LoopItem, Record, Values
from dbosflow._runtime.runs.producers import Producer
from dbosflow._runtime.runs.state import RunStopped
from dbosflow._runtime.streams.frames import Frames
from dbosflow.errors import (
    LeaseLostError,
    NonDeterminismError,
    StreamBackPressureError,
    StreamClosedError,
    StreamError,
    StreamFullError,
    StreamInputError,
    StreamValueTooLargeError,
)
from dbosflow.types import FrameKind
from tests.runtime.hand_made import BODY, Calls, attempt, history, make_run, recorded, shared

EVERYTHING = 10**9


def sums(*texts: str) -> int:
    """The checksum of these values, one after the other."""
    found = NOTHING
    for text in texts:
        found = checksum(text, found)
    return found


def blocks(entries: list[Entry]) -> list[tuple[str, str, int, list[str]]]:
    """The blocks of values among entries: stream, producer, its count before them, and they themselves."""
    return [(one.key, one.producer, one.producer_seq, one.texts) for one in entries if isinstance(one, Values)]


class Bed:
    """A run's streams, and what they have buffered."""

    def __init__(self, *records: object, **rest: object) -> None:
        past = {name: rest.pop(name) for name in list(rest) if name in HISTORY}
        self.calls = Calls()
        self.run = make_run(history(*records, **past), calls=self.calls, **rest)  # type: ignore[arg-type]
        self.streams = self.run.streams

    def write(self, key: str, *texts: str, producer: Producer = BODY) -> None:
        for text in texts:
            self.streams.write(key, text, producer)

    def close(self, key: str, producer: Producer = BODY) -> None:
        self.streams.close(key, producer, FrameKind.COMPLETE, None)

    def taken(self) -> list[Entry]:
        """What a batch takes."""
        return list(self.run.buffer.take(EVERYTHING)[0])


HISTORY = frozenset({"produced", "checksums", "values", "bytes", "tails", "closed", "uncommitted"})


# -- blocks ----------------------------------------------------------------------------------------------------------


def test_values_of_one_producer_share_a_block_until_a_batch_takes_it() -> None:
    bed = Bed()
    bed.write("a", "1", "2")
    assert blocks(bed.taken()) == [("a", "", 0, ["1", "2"])]
    bed.write("a", "3")
    assert blocks(bed.taken()) == [("a", "", 2, ["3"])]
    assert bed.taken() == []


def test_values_of_several_producers_stand_in_the_order_in_which_they_were_written() -> None:
    bed, step = Bed(), attempt("work#0")
    bed.write("a", "1")
    bed.write("a", "2", producer=step)
    bed.write("a", "3")
    assert blocks(bed.taken()) == [("a", "", 0, ["1"]), ("a", "work#0@1.0", 0, ["2"]), ("a", "", 1, ["3"])]


def test_each_stream_has_a_block_of_its_own() -> None:
    bed = Bed()
    for key, text in (("a", "1"), ("b", "2"), ("a", "3")):
        bed.write(key, text)
    assert blocks(bed.taken()) == [("a", "", 0, ["1", "3"]), ("b", "", 0, ["2"])]


def test_a_block_has_no_more_values_than_the_setting_says() -> None:
    bed = Bed(block_values=2)
    bed.write("a", "1", "2", "3")
    assert blocks(bed.taken()) == [("a", "", 0, ["1", "2"]), ("a", "", 2, ["3"])]


def test_a_block_that_has_reached_its_size_takes_no_more() -> None:
    bed = Bed(block_bytes=1000)
    large = '"' + "x" * 900 + '"'
    bed.write("a", large, "2")
    assert [texts for *_, texts in blocks(bed.taken())] == [[large], ["2"]]


def test_buffered_values_count_in_the_buffer_by_their_size() -> None:
    bed = Bed()
    bed.write("a", '"ü"')
    assert bed.run.buffer.size == sum(one.size for one in bed.taken()) == 200 + 4 + 1


# -- replay ----------------------------------------------------------------------------------------------------------


def test_a_replay_passes_over_what_is_durable_by_count_and_appends_the_rest() -> None:
    bed = Bed(produced={("a", ""): 2}, tails={"a": 7})
    bed.write("a", "1", "2")
    assert bed.taken() == []
    assert bed.calls.submitted == 0
    assert bed.calls.skipped == [("a", "", 0, "1"), ("a", "", 1, "2")]
    bed.write("a", "3")
    assert blocks(bed.taken()) == [("a", "", 2, ["3"])]
    assert bed.calls.submitted == 1


def test_values_that_one_producer_has_durable_are_new_of_another_and_in_another_stream() -> None:
    bed = Bed(produced={("a", ""): 1}, tails={"a": 1})
    bed.write("a", "1", producer=attempt("work#0"))
    bed.write("b", "1")
    assert [(key, producer) for key, producer, *_ in blocks(bed.taken())] == [("a", "work#0@1.0"), ("b", "")]


def test_a_close_that_a_replay_knows_of_stands_behind_the_writes_that_preceded_it() -> None:
    bed = Bed(produced={("a", ""): 1}, tails={"a": 2}, closed={"a"})
    bed.write("a", "1")
    with pytest.raises(StreamClosedError):
        bed.write("a", "2")


def test_durable_values_pass_whatever_the_limits_are_by_now() -> None:
    bed = Bed(produced={("a", ""): 2}, tails={"a": 2}, values={"a": 2}, stream_values=1, value_bytes=1)
    bed.write("a", "11", "22")
    with pytest.raises(StreamFullError):
        bed.write("a", "3")


@pytest.mark.parametrize(("texts", "changes"), [(("1", "2"), 0), (("1", "9"), 1), (("9", "2"), 1)])
def test_a_replay_that_writes_other_values_is_told_of_at_the_last_of_them(texts: tuple[str, ...], changes: int) -> None:
    bed = Bed(produced={("a", ""): 2}, checksums={("a", ""): sums("1", "2")}, tails={"a": 2})
    bed.write("a", texts[0])
    assert bed.calls.changed == []
    bed.write("a", texts[1])
    assert [(one.key, one.producer, one.count) for one in bed.calls.changed] == [("a", "", 2)] * changes


def test_values_without_a_checksum_are_not_compared() -> None:
    bed = Bed(produced={("a", ""): 1}, checksums={("a", ""): None}, tails={"a": 1})
    bed.write("a", "9")
    bed.streams.check_all_repeated()
    assert bed.calls.changed == []


@pytest.mark.parametrize("again", [0, 1])
def test_a_body_that_has_not_written_all_of_it_again_has_changed(again: int) -> None:
    bed = Bed(produced={("a", ""): 2}, checksums={("a", ""): sums("1", "2")}, tails={"a": 2})
    bed.write("a", *["1"] * again)
    bed.streams.check_all_repeated()
    assert [(one.key, one.count) for one in bed.calls.changed] == [("a", again)]


def test_a_step_that_is_not_run_again_need_not_repeat_what_it_wrote() -> None:
    place = ("a", "work#0@1.0")
    bed = Bed(produced={place: 2}, checksums={place: sums("1", "2")}, tails={"a": 2})
    bed.streams.check_all_repeated()
    assert bed.calls.changed == []


def test_a_new_value_before_an_operation_on_record_parks_the_workflow_and_is_not_written() -> None:
    """It comes of other code: written, it would be in the way of the old code once that is put back."""
    bed = Bed(recorded("work#0"))
    with pytest.raises(NonDeterminismError, match="writes another value to stream 'a'"):
        bed.write("a", "1")
    assert bed.run.contradiction is not None
    assert bed.taken() == []


def test_a_close_before_an_operation_on_record_parks_the_workflow_and_is_not_written() -> None:
    bed = Bed(recorded("work#0"))
    with pytest.raises(NonDeterminismError, match="closes stream 'a'"):
        bed.close("a")
    assert bed.taken() == []


def test_an_attempt_may_write_whatever_its_branch_has_on_record() -> None:
    """It runs because its own step has no outcome; what it writes is new."""
    bed = Bed(recorded("later#0"))
    bed.write("a", "1", producer=attempt("work#0"))
    bed.close("b", attempt("work#0"))
    assert [type(entry) for entry in bed.taken()] == [Values, Close]


def test_a_resumed_producer_goes_on_behind_what_it_has_durable() -> None:
    bed, producer = Bed(produced={("a", "work#0@*"): 3}, tails={"a": 3}), shared("work#0")
    bed.streams.resume_producer("a", producer.name)
    bed.write("a", "4", producer=producer)
    bed.streams.resume_producer("a", producer.name)
    bed.write("a", "5", producer=producer)
    assert blocks(bed.taken()) == [("a", "work#0@*", 3, ["4", "5"])]


def test_new_values_of_a_body_are_counted_without_repeated_ones_and_those_of_steps() -> None:
    bed = Bed(produced={("a", ""): 2}, tails={"a": 2})
    bed.write("a", "1")
    bed.write("a", "1", producer=attempt("work#0"))
    assert bed.streams.new_values_of_body() == 0
    bed.write("a", "2", "3")
    bed.write("b", "1", producer=Producer("branch#0"))
    assert bed.streams.new_values_of_body() == 2


# -- checks ----------------------------------------------------------------------------------------------------------


def test_an_input_can_be_neither_written_nor_closed_from_inside() -> None:
    bed = Bed(inputs=("in",))
    with pytest.raises(StreamInputError):
        bed.write("in", "1")
    with pytest.raises(StreamInputError):
        bed.close("in")
    with pytest.raises(StreamInputError):
        bed.streams.dead_letter("in", "1", "loop#0")


def test_a_closed_stream_takes_no_values_and_is_not_closed_twice() -> None:
    bed = Bed()
    bed.write("a", "1")
    bed.close("a")
    bed.close("a")
    with pytest.raises(StreamClosedError):
        bed.write("a", "2")
    with pytest.raises(StreamClosedError):
        bed.streams.dead_letter("a", "2", "loop#0")
    assert [type(entry) for entry in bed.taken()] == [Values, Close]


def test_an_attempt_that_is_over_writes_and_closes_nothing() -> None:
    bed, producer = Bed(), attempt("work#0")
    assert producer.attempt is not None
    producer.attempt.closed = True
    with pytest.raises(LeaseLostError):
        bed.write("a", "1", producer=producer)
    with pytest.raises(LeaseLostError):
        bed.close("a", producer)
    assert bed.taken() == []


# -- refusals --------------------------------------------------------------------------------------------------------


def test_a_refusal_that_the_body_gets_is_on_record_before_what_comes_next() -> None:
    bed = Bed(stream_values=1)
    bed.write("a", "1")
    with pytest.raises(StreamFullError):
        bed.write("a", "2")
    bed.write("b", "3")
    assert [
        (type(one), one.key, getattr(one, "kind", None)) for one in bed.taken() if isinstance(one, Values | Record)
    ] == [
        (Values, "a", None),
        (Record, "/write_stream(a)@1.0", "refused"),
        (Values, "b", None),
    ]


def test_a_refusal_that_an_attempt_gets_is_on_no_record_for_its_outcome_is_one() -> None:
    bed = Bed(value_bytes=1)
    with pytest.raises(StreamValueTooLargeError):
        bed.write("a", "11", producer=attempt("work#0"))
    assert bed.taken() == []


def test_a_write_to_a_stream_that_the_body_closed_is_refused_without_a_record_and_with_one_if_a_step_did() -> None:
    """A replay comes to the body's own close before the write, but to a step's maybe not."""
    bed = Bed()
    bed.close("a")
    bed.close("b", attempt("work#0"))
    for key in "ab":
        with pytest.raises(StreamClosedError):
            bed.write(key, "1")
    assert [one.key for one in bed.taken() if isinstance(one, Record)] == ["/write_stream(b)@0.0"]


def test_a_recorded_refusal_is_raised_at_its_write_and_only_there() -> None:
    first = Bed(stream_values=1)
    first.write("a", "1")
    with pytest.raises(StreamFullError) as refusal:
        first.write("a", "2")
    (record,) = [one for one in first.taken() if isinstance(one, Record)]
    past = recorded(record.key, record.kind, error=record.error)
    replay = Bed(past, produced={("a", ""): 1}, tails={"a": 1})
    replay.write("a", "1")
    with pytest.raises(StreamFullError, match=r"is full") as repeated:
        replay.write("a", "2")
    assert str(repeated.value) == str(refusal.value)
    replay.write("a", "2")
    assert blocks(replay.taken()) == [("a", "", 1, ["2"])]


def test_a_write_waits_for_room_only_if_its_value_would_go_into_the_buffer() -> None:
    bed = Bed(buffer_bytes=100, produced={("a", ""): 1}, tails={"a": 1, "closed": 0}, closed={"closed"})
    assert not bed.streams.needs_room("b", BODY)
    bed.write("b", "1")  # 202 bytes: full
    assert bed.streams.needs_room("b", BODY)
    assert not bed.streams.needs_room("a", BODY), "what is durable needs none"
    assert not bed.streams.needs_room("closed", BODY), "it is refused"
    bed.run.stop("lost")
    assert not bed.streams.needs_room("b", BODY), "it raises"


def test_a_stream_takes_a_value_at_once_if_it_is_open_and_there_is_room() -> None:
    bed = Bed(buffer_bytes=100, tails={"closed": 0}, closed={"closed"})
    assert bed.streams.takes("a")
    assert not bed.streams.takes("closed")
    bed.write("a", "1")
    assert not bed.streams.takes("a")


def test_a_write_for_which_there_was_no_room_in_time_is_refused_on_record() -> None:
    bed = Bed(buffer_timeout=1.0)
    with pytest.raises(StreamBackPressureError):
        bed.streams.refuse_for_room("a", BODY)
    assert [one.key for one in bed.taken() if isinstance(one, Record)] == ["/write_stream(a)@0.0"]
    bed.run.stop("lost")
    with pytest.raises(RunStopped):
        bed.streams.refuse_for_room("a", BODY)


@pytest.mark.parametrize("settings", [{"stream_values": 1}, {"value_bytes": 1}, {"stream_bytes": 3}])
def test_dead_letters_have_the_limits_of_values(settings: dict[str, int]) -> None:
    bed = Bed(**settings)
    first = bed.streams.dead_letter("dead", "1", "loop#0")
    assert (first.producer_seq, first.texts) == (0, ["1"])
    with pytest.raises(StreamError):
        bed.streams.dead_letter("dead", "22", "loop#0")


def test_dead_letters_are_counted_as_values_of_their_loop() -> None:
    bed = Bed(produced={("dead", "loop#0+dead"): 4}, tails={"dead": 4})
    assert [bed.streams.dead_letter("dead", "1", "loop#0").producer_seq for _ in range(2)] == [4, 5]
    assert bed.taken() == [], "it is written with its item's record"


def test_the_dead_letter_of_an_item_stands_in_the_items_record() -> None:
    bed = Bed()
    record = Record("loop#0/3", RecordKind.STEP, loop_item=LoopItem("loop#0", 3))
    bed.run.append_item(record, Future(), ("dead", "1"))
    assert record.dead_letter is not None
    assert (record.dead_letter.key, record.dead_letter.producer) == ("dead", "loop#0+dead")


# -- attempts --------------------------------------------------------------------------------------------------------


def test_a_new_attempt_asks_to_roll_back_what_earlier_ones_of_its_step_left() -> None:
    left = [("work#0@1.0", "a", 0, 1)]
    bed = Bed(uncommitted=left, tails={"a": 1})
    bed.streams.begin_attempt("other#0")
    assert bed.taken() == []
    bed.streams.begin_attempt("work#0")
    assert [entry.step_key for entry in bed.taken() if isinstance(entry, AttemptRollback)] == ["work#0"]
    bed.run.stop("lost")
    bed.streams.begin_attempt("work#0")
    assert bed.taken() == []


def test_what_a_slice_has_made_of_the_streams_is_the_runs_once_it_is_acknowledged() -> None:
    bed = Bed(tails={"a": 3}, uncommitted=[("work#0@1.0", "a", 1, 2)])
    bed.write("a", "1")
    bed.close("b")
    frames = Frames(bed.streams, 0)
    for entry in bed.taken():
        if isinstance(entry, Values):
            frames.values(entry)
        elif isinstance(entry, Close):
            frames.close(entry)
    frames.commit_or_roll_back(Record("work#0@1.0", RecordKind.ATTEMPT))
    streams = bed.streams
    assert (streams.by_key["a"].tail, streams.by_key["b"].ended, bool(streams.uncommitted)) == (3, False, True)
    streams.acknowledged(frames)
    assert (streams.by_key["a"].tail, streams.by_key["b"].ended, bool(streams.uncommitted)) == (5, True, False)
    assert streams.blocks == 3
    assert streams.checksum("a", "") == sums("1")


def test_a_wish_to_close_that_is_rolled_back_opens_the_stream_for_the_next_attempt() -> None:
    bed, first = Bed(), attempt("work#0", "1.0")
    bed.close("a", first)
    frames = Frames(bed.streams, 0)
    for entry in bed.taken():
        assert isinstance(entry, Close)
        frames.close(entry)
    frames.commit_or_roll_back(Record("work#0@1.0", RecordKind.ATTEMPT))
    bed.streams.acknowledged(frames)
    bed.write("a", "1", producer=attempt("work#0", "1.1"))
    assert blocks(bed.taken()) == [("a", "work#0@1.1", 0, ["1"])]


def test_a_checksum_goes_on_from_what_is_durable_and_is_unknown_where_that_has_none() -> None:
    produced = {("a", ""): 2, ("b", ""): 1}
    bed = Bed(produced=produced, checksums={("a", ""): 17, ("b", ""): None}, tails={"a": 2, "b": 1})
    assert [bed.streams.checksum(key, "") for key in "abc"] == [17, None, NOTHING]
