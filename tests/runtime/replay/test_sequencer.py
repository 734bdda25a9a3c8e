"""The sequencer before a run made by hand, on virtual time: which outcome comes when, and when it never does."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.replay.recorded_order import RecordedOrder
from dbosflow._runtime.replay.sequencer import QUIET_ROUNDS, SPINNER_ROUNDS, WARN_AFTER, Sequencer
from dbosflow._runtime.runs.buffer import Buffer
from dbosflow._runtime.runs.entries import Record
from dbosflow._runtime.runs.state import RunStopped
from dbosflow._store.step import History, Recorded
from dbosflow.config import Settings
from tests.replay import virtual_time
from tests.runtime.hand_made import history, recorded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from dbosflow._runtime.replay.sequenced_run import SequencedRun


@dataclass(eq=False)
class SequencedByHand:
    """A run whose coroutines do what a test says."""

    history: History = field(default_factory=History)
    settings: Settings = field(default_factory=Settings)
    replayed: Collection[str] = ()
    buffer: Buffer = field(default_factory=lambda: Buffer(100))
    coroutines: Any = ()
    resumptions: int = 0
    timers: Any = None
    stopping: RunStopped | None = None
    gets_no_further: bool = False
    resumption_event: asyncio.Event | None = None
    workflow_id: str = "wf"
    asks_in_order: bool = False
    """Whether its operations are on record in an order, which a replay follows."""
    is_roomy: bool = True
    """Whether there is room in time for a branch that waits for some."""
    calls: list[str] = field(default_factory=list)
    contradictions: list[tuple[str, str, str | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.recorded_order = RecordedOrder(self.history) if self.asks_in_order else None
        self.sequencer = Sequencer(self)

    async def room(self) -> bool:
        """Waits for room."""
        return self.is_roomy

    def submit(self) -> None:
        """The journal is notified."""
        self.calls.append("submit")

    def replay_is_over(self) -> None:
        """No timers are watched any more."""
        self.calls.append("over")

    def disagree(self, asked: str, there: str, record: str | None = None) -> BaseException:
        """Code and records disagree."""
        self.contradictions.append((asked, there, record))
        self.stop()
        return RunStopped("parked")

    def stop(self) -> None:
        """As a run stops."""
        self.stopping = RunStopped("stopped")
        self.sequencer.stop(self.stopping)


def _is_one(run: SequencedByHand) -> SequencedRun:
    return run  # what the sequencer asks for, and mypy sees that it is there


def turns(*keys: str) -> History:
    """A history whose turns have these records: ``a b`` are two of one turn."""
    records: list[Recorded] = []
    for turn, names in enumerate(keys):
        for key in names.split():
            records.append(recorded(key, seq=len(records), turn=turn))
    return history(*records)


def coroutine(**state: Any) -> Any:
    """A coroutine of the run, which waits in an operation."""
    return SimpleNamespace(
        **{"operating": True, "waits": True, "is_woken": False, "branch": SimpleNamespace(path="")} | state
    )


def noting(name: str, came: list[str]) -> Callable[[object], None]:
    """A callback that notes that something came."""
    return lambda _: came.append(name)


async def rounds(count: int = 3 * QUIET_ROUNDS) -> None:
    """Lets the loop go round so often, by default until what is quiet has long been found to be."""
    for _ in range(count):
        await asyncio.sleep(0)


def on_virtual_time(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """The test on a loop whose clock jumps: what waits for ever is seen at once, and hours take no time."""

    def run() -> None:
        async def main() -> None:
            await test()

        virtual_time.run(main())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


# -- the order of outcomes -------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.randoms())
def test_outcomes_come_in_the_recorded_order_in_whichever_they_are_asked_for(numbers: list[int], random: Any) -> None:
    """By turn, and by ``seq`` in a turn; not by when the branches get to ask."""
    records = [recorded(f"work#{seq}", seq=seq, turn=turn) for seq, turn in enumerate(sorted(numbers))]
    expected = [record.key for record in records]

    async def main() -> None:
        shuffled = random.sample(records, len(records))
        run = SequencedByHand(history(*shuffled), coroutines=[coroutine()])
        came: list[str] = []
        for key in random.sample(expected, len(expected)):
            run.sequencer.turn_of(key).add_done_callback(noting(key, came))
            await rounds(random.randrange(3 * QUIET_ROUNDS))
        await rounds(len(expected) * 3 * QUIET_ROUNDS)
        assert came == expected
        run.sequencer.finish()

    virtual_time.run(main())


@on_virtual_time
async def test_outcomes_of_one_turn_come_together_once_all_of_them_are_asked_for() -> None:
    """The live run got them together: with one alone, its branch would run before the other's."""
    run = SequencedByHand(turns("a b"), coroutines=[coroutine()])
    first = run.sequencer.turn_of("a")
    await rounds()
    assert not first.done()
    second = run.sequencer.turn_of("b")
    await asyncio.gather(first, second)


@on_virtual_time
async def test_no_outcome_comes_before_the_run_is_quiet() -> None:
    busy = coroutine(waits=False)
    run = SequencedByHand(turns("a"), coroutines=[busy])
    outcome = run.sequencer.turn_of("a")
    await rounds(SPINNER_ROUNDS // 2)
    assert not outcome.done()
    busy.waits = True
    await rounds()
    assert outcome.done()


@on_virtual_time
async def test_a_resumption_begins_the_wait_for_quiet_anew() -> None:
    """A gather of gathers passes a result up one turn of the loop at a time; meanwhile every branch seems to wait."""
    run = SequencedByHand(turns("a"), coroutines=[coroutine()])
    outcome = run.sequencer.turn_of("a")
    for _ in range(5):
        await rounds(QUIET_ROUNDS - 2)
        run.resumptions += 1
    assert not outcome.done()
    await rounds()
    assert outcome.done()


def test_code_that_never_gets_quiet_gets_its_outcomes_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        run = SequencedByHand(turns("a"), coroutines=[coroutine(waits=False)])
        outcome = run.sequencer.turn_of("a")
        await rounds(SPINNER_ROUNDS + 10)
        assert outcome.done()
        run.sequencer.finish()

    virtual_time.run(main())
    assert "its code goes round in the event loop" in caplog.text


@pytest.mark.parametrize("kind", ["attempt", "refused", "patched", "changed", "timeout"])
def test_records_that_deliver_nothing_have_no_turn(kind: str) -> None:
    async def main() -> None:
        run = SequencedByHand(history(recorded("a@1.0", kind), recorded("b", seq=1, turn=1)))
        assert not run.sequencer.is_to_come("a@1.0")
        await run.sequencer.turn_of("b")
        assert not run.sequencer.is_replaying

    virtual_time.run(main())


@on_virtual_time
async def test_what_was_replayed_before_there_were_branches_has_no_turn_any_more() -> None:
    run = SequencedByHand(turns("a", "b"), replayed={"a"})
    assert not run.sequencer.is_to_come("a")
    assert run.sequencer.is_last("b")
    await run.sequencer.turn_of("b")


@on_virtual_time
async def test_the_last_turn_is_known_as_such() -> None:
    run = SequencedByHand(turns("a", "b c"), coroutines=[coroutine()])
    sequencer = run.sequencer
    assert [sequencer.is_last(key) for key in "abc"] == [False, True, True]
    assert [sequencer.is_to_come(key) for key in "abcd"] == [True, True, True, False]
    await sequencer.turn_of("a")
    assert [sequencer.is_to_come(key) for key in "abc"] == [False, True, True]
    await asyncio.gather(sequencer.turn_of("b"), sequencer.turn_of("c"))
    assert sequencer.is_last("anything")


@on_virtual_time
async def test_an_outcome_that_is_discarded_is_not_waited_for() -> None:
    """Neither is that a sleep was over, whose record has a key of its own."""
    run = SequencedByHand(turns("a", "a/woken b", "c"))
    last = run.sequencer.turn_of("c")
    asked = run.sequencer.turn_of("b")
    run.sequencer.discard_outcome("a")
    await asyncio.gather(asked, last)


# -- new commits -----------------------------------------------------------------------------------------------------


def commit(*names: str, came: list[str]) -> list[Record]:
    """The records of one commit, whose outcomes somebody waits for."""
    records = []
    for name in names:
        waiter: Future[None] = Future()
        waiter.add_done_callback(noting(name, came))
        records.append(Record(name, RecordKind.STEP, waiter=waiter))
    return records


@on_virtual_time
async def test_new_outcomes_come_after_all_that_is_on_record() -> None:
    came: list[str] = []
    run = SequencedByHand(turns("a"), coroutines=[coroutine()])
    run.sequencer.committed(commit("new", came=came))
    await rounds()
    assert came == []
    run.sequencer.turn_of("a").add_done_callback(lambda _: came.append("a"))
    await rounds(6 * QUIET_ROUNDS)
    assert came == ["a", "new"]


@on_virtual_time
async def test_each_commit_is_delivered_at_once_and_the_next_when_the_run_is_quiet_again() -> None:
    came: list[str] = []
    one = coroutine()
    run = SequencedByHand(coroutines=[one])
    for names in ("ab", "c"):
        run.sequencer.committed(commit(*names, came=came))
    await rounds(QUIET_ROUNDS)
    assert came == []
    for _ in range(QUIET_ROUNDS):
        await rounds(not came)
    assert came == ["a", "b"]
    one.waits = False
    await rounds()
    assert came == ["a", "b"]
    one.waits = True
    await rounds()
    assert came == ["a", "b", "c"]


@on_virtual_time
async def test_the_end_of_the_body_comes_once_all_else_of_its_commit_is_settled() -> None:
    """Live and on replay: whoever gets an outcome of that commit acts on it first, as by registering how to undo it."""
    came: list[str] = []
    one = coroutine()
    run = SequencedByHand(coroutines=[one])
    records = commit("a", "end", "b", came=came)
    records[1].kind = RecordKind.CANCELLED
    run.sequencer.committed(records)
    for _ in range(3 * QUIET_ROUNDS):
        await rounds(not came)
    one.waits = False
    await rounds()
    assert came == ["a", "b"]
    one.waits = True
    await rounds()
    assert came == ["a", "b", "end"]

    came.clear()
    past = history(
        recorded("a"), recorded("end", "cancelled", seq=1), recorded("b", seq=2), recorded("c", turn=1, seq=3)
    )
    run = SequencedByHand(past, coroutines=[one])
    for key in ("c", "b", "end", "a"):
        run.sequencer.turn_of(key).add_done_callback(noting(key, came))
    await rounds(12 * QUIET_ROUNDS)
    assert came == ["a", "b", "end", "c"]


@on_virtual_time
async def test_what_is_committed_when_the_run_has_ended_is_delivered_at_once() -> None:
    came: list[str] = []
    run = SequencedByHand(coroutines=[coroutine(waits=False)])
    run.sequencer.committed(commit("a", came=came))
    run.sequencer.finish()
    assert came == ["a"]
    run.sequencer.committed(commit("b", came=came))
    assert came == ["a", "b"]


# -- the end of the replay -------------------------------------------------------------------------------------------


@on_virtual_time
async def test_a_replay_is_over_when_all_was_delivered_and_all_operations_were_asked_for() -> None:
    run = SequencedByHand(turns("a#0", "b#0"), asks_in_order=True, coroutines=[coroutine()])
    assert run.recorded_order is not None
    caught_up = run.sequencer.caught_up()
    for key in ("a#0", "b#0"):
        await run.sequencer.turn_of(key)
        await rounds()
        assert run.sequencer.is_replaying
        assert not caught_up.done()
    for key in ("a#0", "b#0"):
        run.recorded_order.ask("", key)
    run.sequencer.committed([])
    await caught_up
    assert not run.sequencer.is_replaying


@on_virtual_time
async def test_the_journal_is_told_once_when_the_replay_is_over() -> None:
    """Until then it is given nothing of the run, for that may contradict what is on record."""
    run = SequencedByHand(turns("a"), coroutines=[coroutine()])
    await rounds()
    assert run.calls == []
    await run.sequencer.turn_of("a")
    await rounds()
    run.sequencer.committed([])
    await rounds()
    assert run.calls.count("submit") == 1
    assert "over" in run.calls


@on_virtual_time
async def test_an_operation_of_a_run_without_records_need_not_wait_for_a_replay() -> None:
    run = SequencedByHand()
    assert run.sequencer.caught_up().done()


@on_virtual_time
async def test_a_run_that_stops_ends_all_waiting_and_whatever_asks_afterwards_fails_at_once() -> None:
    run = SequencedByHand(turns("a", "b"), coroutines=[coroutine(), coroutine()])
    sequencer = run.sequencer
    yielded = asyncio.ensure_future(sequencer.yield_control())
    run.is_roomy = False
    run.buffer.size = 1000
    waiting: list[asyncio.Future[Any]] = [sequencer.turn_of("b"), sequencer.caught_up(), yielded]
    await rounds()
    run.stop()
    late: list[asyncio.Future[Any]] = [sequencer.turn_of("a"), sequencer.caught_up()]
    found = await asyncio.gather(*waiting, *late, return_exceptions=True)
    assert run.contradictions == []
    assert found == [run.stopping] * 5


@on_virtual_time
async def test_a_workflow_that_has_ended_cancels_what_still_waits_for_turns() -> None:
    run = SequencedByHand(turns("a", "b"), coroutines=[coroutine()])
    waiting = [run.sequencer.turn_of("b"), run.sequencer.caught_up()]
    run.sequencer.finish()
    assert all(one.cancelled() for one in waiting)


# -- control that was yielded ----------------------------------------------------------------------------------------


@on_virtual_time
async def test_a_branch_that_yields_control_goes_on_before_the_next_outcome() -> None:
    came: list[str] = []
    run = SequencedByHand(turns("a"), coroutines=[coroutine()])
    run.sequencer.turn_of("a").add_done_callback(lambda _: came.append("a"))

    async def write() -> None:
        assert await run.sequencer.yield_control() is True
        came.append("goes on")

    writer = asyncio.ensure_future(write())
    await writer
    await rounds()
    assert came == ["goes on", "a"]


@on_virtual_time
async def test_a_branch_that_yields_control_is_told_that_no_room_came() -> None:
    run = SequencedByHand(is_roomy=False)
    assert await run.sequencer.yield_control() is False


@on_virtual_time
async def test_in_a_replay_a_branch_does_not_wait_for_room_that_only_its_end_makes() -> None:
    """What is new stays in the buffer until then; so outcomes come first where that is full."""
    came: list[str] = []
    run = SequencedByHand(turns("a"), coroutines=[coroutine()])
    run.buffer.size = 1000
    yielded = asyncio.ensure_future(run.sequencer.yield_control())
    yielded.add_done_callback(lambda _: came.append("goes on"))
    run.sequencer.turn_of("a").add_done_callback(lambda _: came.append("a"))
    await yielded
    assert came == ["a", "goes on"]


# -- cancellations ---------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_a_withheld_cancellation_is_raised_later_and_once() -> None:
    run = SequencedByHand()
    came: list[str] = []

    async def operation() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as cancellation:
            run.sequencer.withheld.keep(cancellation)
        came.append("goes on with what is on record")
        try:
            run.sequencer.withheld.raise_kept()
        except asyncio.CancelledError:
            came.append("cancelled")
        run.sequencer.withheld.raise_kept()
        came.append("once")

    task = asyncio.ensure_future(operation())
    await asyncio.sleep(0)
    task.cancel()
    await task
    assert came == ["goes on with what is on record", "cancelled", "once"]


@on_virtual_time
async def test_a_withheld_cancellation_that_was_withdrawn_is_not_raised() -> None:
    """As ``asyncio.timeout`` does when its block is over in time."""
    run = SequencedByHand()

    async def operation() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as cancellation:
            run.sequencer.withheld.keep(cancellation)
        asyncio.current_task().uncancel()  # type: ignore[union-attr]
        run.sequencer.withheld.raise_kept()
        return "goes on"

    task = asyncio.ensure_future(operation())
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "goes on"


@on_virtual_time
async def test_whoever_waits_for_its_cancellation_gets_the_withheld_one_or_the_next() -> None:
    run = SequencedByHand()

    async def withheld() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as cancellation:
            run.sequencer.withheld.keep(cancellation)
        await run.sequencer.cancellation()

    tasks = [asyncio.ensure_future(withheld()), asyncio.ensure_future(run.sequencer.cancellation())]
    await rounds()
    for task in tasks:
        assert not task.done()
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)


# -- when nothing can come any more ----------------------------------------------------------------------------------


async def watch(run: SequencedByHand, seconds: float = 3600.0) -> float:
    """How long it took until code and records disagreed; at most so long."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for _ in range(round(seconds)):
        if not run.contradictions:
            await asyncio.sleep(1.0)
    return loop.time() - began


@on_virtual_time
async def test_code_and_records_disagree_when_nothing_can_ask_for_the_next_turn() -> None:
    run = SequencedByHand(turns("a b", "c"))
    outcome = run.sequencer.turn_of("a")
    assert await watch(run) <= 1.0
    ((asked, there, record),) = run.contradictions
    assert "can go no further" in asked
    assert (there, record) == ("'b'", "b")
    assert outcome.exception() is run.stopping


@on_virtual_time
async def test_an_operation_that_nobody_asks_for_contradicts_although_all_turns_are_over() -> None:
    """An attempt of a step is on record, and the step is not asked for: the code has changed."""
    run = SequencedByHand(history(recorded("a#0@1.0", "attempt")), asks_in_order=True)
    assert await watch(run) <= 1.0
    assert run.contradictions[0][2] == "a#0"


@pytest.mark.parametrize(
    ("state", "waits_for"),
    [
        ({"coroutines": [coroutine()]}, "an operation under way"),
        ({"coroutines": [coroutine(operating=False, waits=False)]}, "code that runs"),
        ({"gets_no_further": True}, "its end"),
    ],
    ids=["operation", "code", "end"],
)
def test_a_replay_waits_as_long_as_something_may_still_ask(
    state: dict[str, Any], waits_for: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong contradiction would park a sound workflow; so after a second it says what it waits for, and waits on."""

    async def main() -> None:
        run = SequencedByHand(turns("a"), **state)
        await watch(run)
        assert run.contradictions == []
        assert run.sequencer.stalled_on == waits_for
        run.coroutines = ()
        run.gets_no_further = False
        await run.sequencer.turn_of("a")
        run.sequencer.finish()

    virtual_time.run(main())
    assert caplog.text.count(f"its replay waits for {waits_for}, which is on no record") == 1


@on_virtual_time
async def test_operations_that_wait_for_the_sequencer_itself_are_waited_for_by_nobody() -> None:
    """Where all of them are suspended, nothing lets them go on."""
    run = SequencedByHand(turns("a", "b"), coroutines=[coroutine()])
    with run.sequencer.suspended():
        assert await watch(run) <= 1.0


@on_virtual_time
async def test_a_plain_timer_of_the_code_is_waited_for_and_what_comes_behind_it_is_not() -> None:
    loop = asyncio.get_running_loop()
    timers = SimpleNamespace(last_after=lambda moment: 100.0 if moment < 100.0 else None)
    run = SequencedByHand(turns("a"), timers=timers)
    assert loop.time() < 1.0
    assert 99.0 < await watch(run) <= 101.0
    assert run.sequencer.stalled_on == "a plain timer"


@on_virtual_time
async def test_an_event_is_waited_for_until_the_grace_is_over_since_a_thread_may_set_it() -> None:
    waiting = asyncio.Event().wait()
    future = waiting.send(None)
    run = SequencedByHand(turns("a"), settings=Settings(replay_grace=30.0))
    branch = SimpleNamespace(path="one#0", run=run)
    run.coroutines = [coroutine(operating=False, waiting=future, branch=branch, cr_await=waiting)]
    run.sequencer.committed([])
    assert 29.0 < await watch(run) <= 31.0
    assert "wait in locks.py" in (run.sequencer.stalled_on or "")
    assert "branch 'one#0'" in (run.sequencer.stalled_on or "")
    waiting.close()


@on_virtual_time
async def test_a_future_of_unknown_origin_is_waited_for_without_end() -> None:
    future = asyncio.get_running_loop().create_future()
    run = SequencedByHand(turns("a"), coroutines=[])
    branch = SimpleNamespace(path="", run=run)
    run.coroutines = [coroutine(operating=False, waiting=future, branch=branch)]
    await watch(run)
    assert run.contradictions == []
    assert "the workflow's own branch" in (run.sequencer.stalled_on or "")
    assert WARN_AFTER < 3600
    run.sequencer.finish()


@on_virtual_time
async def test_an_operation_that_is_woken_and_waits_on_is_looked_at_again() -> None:
    """As one that a further cancellation does not end: that is no news, and nothing else may come."""
    woken = coroutine(is_woken=True)
    run = SequencedByHand(turns("a"), coroutines=[woken])
    with run.sequencer.suspended():
        await watch(run, 10.0)
        assert run.contradictions == []
        woken.is_woken = False
        assert await watch(run, 10.0) <= 1.0
    assert run.contradictions != []
