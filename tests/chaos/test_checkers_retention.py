"""The checkers of trimmed streams, removed workflows, a queue's limit and the ledger report just what is wrong."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine
from tests.behaviour import ledger
from tests.behaviour.tables import disorder
from tests.chaos.checkers.final_states import FinalStateMonitor
from tests.chaos.checkers.queue_limit import QueueLimitChecker
from tests.chaos.checkers.streams import PRUNED, check_reading
from tests.chaos.checkers.workflows import expected_of
from tests.chaos.corruption import corrupt, delete_blocks, history_of, run_history, violations
from tests.chaos.history.ledger_reader import LedgerReader, Line
from tests.chaos.history.run_history import RunHistory, TrimHistory
from tests.chaos.nodes.workers import Frozen
from tests.support import eventually

if TYPE_CHECKING:
    from pathlib import Path

PID = os.getpid()


def trims(first: int, asked: int) -> RunHistory:
    """What is known of the trimmed input."""
    return replace(run_history(), trimmed={"looping": TrimHistory("work", first, asked)})


def test_a_trim_as_asked_for_is_not_reported(url: str) -> None:
    with Engine(url, executes=False) as engine:
        eventually(lambda: engine.streams.trim("looping", "work", before=3) == 3)
        for key in ("values", "rare"):
            engine.streams.trim("sequence", key, before=5)
            engine.streams.trim("retrying", "tokens", before=2)
    assert violations(url, trims(3, 3)) == []
    assert disorder(url) == []


@pytest.mark.parametrize(("first", "asked"), [(4, 4), (1, 2)], ids=["less than was said", "more than was asked for"])
def test_a_trimmed_stream_with_another_beginning_is_reported(url: str, first: int, asked: int) -> None:
    with Engine(url, executes=False) as engine:
        eventually(lambda: engine.streams.trim("looping", "work", before=3) == 3)
    assert any("begins at 3" in what for what in violations(url, trims(first, asked)))


def test_a_stream_whose_beginning_is_gone_untrimmed_is_reported(url: str) -> None:
    """By those who look at all rows, too; and so is one that lacks more than was trimmed."""
    with Engine(url, executes=False) as engine:
        eventually(lambda: engine.streams.trim("looping", "work", before=1) == 1)
    corrupt(url, delete_blocks("listening", "chat", '"offset" = 0'))
    assert any("'chat' goes on at 1 after 0" in what for what in violations(url))
    assert any("a gap or an overlap" in what and "listening" in what for what in disorder(url))
    assert not any("'looping'" in what for what in disorder(url))
    corrupt(url, "UPDATE dbosflow.stream_trim SET count = 2 WHERE workflow_id = 'looping'")
    assert any("a gap or an overlap" in what and "looping" in what for what in disorder(url))


def test_a_stream_that_lacks_more_than_was_trimmed_is_reported(url: str) -> None:
    """A body's, and a step's."""
    with Engine(url, executes=False) as engine:
        assert engine.streams.trim("sequence", "values", before=2) == 2
        assert engine.streams.trim("resuming", "kept", before=1) == 1
    corrupt(
        url, """DELETE FROM dbosflow.stream_block WHERE key = 'values' AND workflow_id = 'sequence' AND "offset" = 2"""
    )
    corrupt(
        url, """DELETE FROM dbosflow.stream_block WHERE key = 'kept' AND workflow_id = 'resuming' AND "offset" = 1"""
    )
    wrong = violations(url)
    assert "stream 'values' lacks 3 values at its beginning, and 2 were trimmed" in wrong
    assert any(what.startswith("stream 'kept', 'step 2'") for what in wrong)


@pytest.mark.parametrize("fault", ["none", "skip", "early", "late"])
def test_a_reader_that_was_not_told_what_is_gone_is_reported(url: str, fault: str) -> None:
    """It may not go on behind the gap as if nothing was; nor be told of a gap that is not there."""
    known = run_history()
    with Engine(url, executes=False) as engine:
        whole = [[offset, value] for offset, value in history_of(url, "sequence").values("values")]
        gone = engine.streams.trim("sequence", "values", before=5)
    assert gone == 5
    history = history_of(url, "sequence")
    segments: list[Any] = [[0, whole[: gone - 1]], [gone, whole[gone:]]]
    truncated = [[0, gone]]
    match fault:
        case "skip":
            segments = [[0, whole[: gone - 1] + whole[gone:]]]
            truncated = []
        case "early":
            truncated = [[0, gone - 1]]
        case "late":
            truncated = [[0, gone + 1]]
    reading = {"key": "values", "mode": "late", "view": "live", "segments": segments, "truncated": truncated}
    wrong = [*check_reading(reading | {"end": [True, None]}, history, expected_of(history, known))]
    assert bool(wrong) == (fault != "none"), wrong


def test_a_reader_whose_workflow_is_there_may_not_be_told_that_it_is_gone(url: str) -> None:
    """One whose workflow is removed may; but what it saw before has no gap."""
    history = history_of(url, "sequence")
    whole = [[offset, value] for offset, value in history.values("values")]
    reading = {"key": "values", "mode": "slow", "view": "live", "segments": [[0, whole[:3]]], "end": PRUNED}
    assert [*check_reading(reading, history)] != []
    assert [*check_reading(reading, history, pruned=True)] == []
    reading["segments"] = [[0, [whole[0], whole[2]]]]
    assert [*check_reading(reading, history, pruned=True)] != []


def test_a_workflow_that_is_gone_and_was_not_to_be_removed_is_reported(url: str) -> None:
    final_states = FinalStateMonitor(url)
    final_states.sample()
    with Engine(url, executes=False) as engine:
        assert engine.prune(older_than=0) > 2
    wrong = final_states.compare(removed={"sequence", "looping"})
    assert {what.split()[0] for what in wrong} >= {"branching", "listening"}
    assert not {"sequence", "looping"} & {what.split()[0] for what in wrong}
    assert final_states.compare(removed={"sequence", "looping"}) == []  # each is said once


# -- a queue's limit ---------------------------------------------------------------------------------------------------


def over_limit(frozen: list[Frozen], *lines: tuple[str, str, float]) -> list[str]:
    """The violations of a limit of 2, by what one process noted."""
    checker = QueueLimitChecker(2, frozen)
    for what, workflow_id, at in lines:
        checker.follow(workflow_id, Line(what, None, None, PID, at))
    return checker.violations


def test_one_more_workflow_than_the_queue_limit_is_reported() -> None:
    """At the very moment; those who left, those of a process of the same id before, and a second pass do not count."""
    three = [("enter", name, float(at)) for at, name in enumerate("abc")]
    assert "ran 3 workflows of a queue of 2 at once: ['a', 'b', 'c']" in over_limit([], *three)[0]
    assert over_limit([], *three[:2], ("leave", "a", 2.0), ("enter", "c", 2.0)) == []
    assert over_limit([], *three[:2], ("started", "", 2.0), ("enter", "c", 2.0)) == []
    assert over_limit([], *three[:2], ("enter", "a", 2.0)) == []
    assert over_limit([], *three[:2], ("enter", "a", 2.0), ("leave", "a", 2.0), ("enter", "c", 3.0)) != []


def test_a_body_from_before_a_freeze_does_not_count_against_the_queue_limit() -> None:
    """What entered afterwards does; so does everything in a process that was not frozen."""
    lines = [("enter", "a", 1.0), ("enter", "b", 1.0), ("enter", "c", 9.0), ("enter", "d", 9.0)]
    assert over_limit([Frozen(PID, since=2.0, until=8.0)], *lines) == []
    assert over_limit([Frozen(PID + 1, since=2.0, until=8.0)], *lines) != []
    assert over_limit([Frozen(PID, since=2.0, until=8.0)], *lines, ("enter", "e", 9.0)) != []
    assert over_limit([Frozen(PID, since=2.0, until=9.5)], *lines) != []


# -- the ledger --------------------------------------------------------------------------------------------------------


def test_no_line_of_the_ledger_is_lost_when_a_new_file_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one that somebody writes to the old file afterwards; and what was checked may be forgotten."""
    monkeypatch.setenv(ledger.VARIABLE, str(tmp_path / "ledger"))
    monkeypatch.setattr("tests.chaos.history.ledger_reader.ROTATED_BYTES", 0)
    reader = LedgerReader()
    ledger.note(["pass", "w", None, None])
    with (tmp_path / "ledger").open("a") as opened_before:
        reader.read_on()
        reader.rotate()
        ledger.note(["begin", "w", "s#0", "1.1"])
        opened_before.write(f'[["begin", "w/child", "s#1", "1.1"], {PID}, {time.time()}]\n')
    reader.read_on()
    assert [line.what for line in reader.of("w")] == ["pass", "begin"]
    reader.forget("w")
    assert reader.late({"x"}) == []
    assert [line.key for _, line in reader.late({"w"})] == ["s#1"]
    assert reader.of("w/child") == ()
