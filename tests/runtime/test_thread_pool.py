"""The pool of sync workflows: its limit is that of the threads that run, and those that wait have one of their own."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from dbosflow._runtime.process.thread_pool import Place, ThreadPool
from dbosflow.errors import ThreadLimitError
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

PATIENCE = 60.0


@pytest.fixture
def order() -> list[str]:
    """What was done, in its order."""
    return []


class Pools:
    """Makes pools that are closed when the test is over, whatever their threads wait for."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def __call__(self, limit: int, waiting_limit: int = 8) -> ThreadPool:
        pool = ThreadPool(limit, "test-pool", waiting_limit=waiting_limit)
        self._stack.callback(pool.shutdown)
        return pool

    def gate(self) -> threading.Event:
        """An event that is set in the end."""
        gate = threading.Event()
        self._stack.callback(gate.set)
        return gate


@pytest.fixture
def pools() -> Iterator[Pools]:
    with ExitStack() as stack:
        yield Pools(stack)
    eventually(lambda: not [one for one in threading.enumerate() if one.name.startswith("test-pool")])


class Waiter:
    """A call that goes away, and comes back when it is let."""

    def __init__(
        self, pool: ThreadPool, gate: threading.Event, *, awaits: str | None = None, limit: str = "raise"
    ) -> None:
        self._pool, self._gate, self._awaits, self._limit = pool, gate, awaits, limit
        self.is_away = threading.Event()

    def __call__(self) -> str:
        with self._pool.away("this call", awaits=self._awaits, at_the_limit=self._limit):
            self.is_away.set()
            assert self._gate.wait(PATIENCE)
        return "back"


def _busy(pool: ThreadPool, gate: threading.Event) -> Future[bool]:
    """A call that runs until it is let go; it has begun."""
    begun = threading.Event()

    def call() -> bool:
        begun.set()
        return gate.wait(PATIENCE)

    future = pool.submit(call)
    assert begun.wait(PATIENCE)
    return future


def _noting(order: list[str], name: str) -> Callable[[], None]:
    return lambda: order.append(name)


def test_a_thread_that_waits_leaves_its_place_to_another_call(pools: Pools) -> None:
    pool, gate = pools(1), pools.gate()
    waiting = [pool.submit(Waiter(pool, gate)) for _ in range(5)]
    assert pool.submit(lambda: "ran").result(PATIENCE) == "ran"
    gate.set()
    assert [one.result(PATIENCE) for one in waiting] == ["back"] * 5


def test_no_more_calls_run_at_a_time_than_the_limit(pools: Pools) -> None:
    """Also when many come back at once: each takes a place before it goes on."""
    pool, gate, leave = pools(2), pools.gate(), pools.gate()
    back: list[str] = []
    waiter = Waiter(pool, gate)

    def call() -> bool:
        back.append(waiter())
        return leave.wait(PATIENCE)

    calls = [pool.begin(number, call, wanted=True) for number in range(8)]
    eventually(lambda: pool._away == 8)
    gate.set()
    eventually(lambda: len(pool._returning) == 6)
    assert len(back) == 2
    leave.set()
    assert all(one.result(PATIENCE) for one in calls)


def test_a_call_that_has_waited_gets_its_thread_back_before_queued_calls(pools: Pools, order: list[str]) -> None:
    pool, gate, busy = pools(1), pools.gate(), pools.gate()
    waiter = Waiter(pool, gate)
    returned = pool.submit(waiter)
    returned.add_done_callback(lambda _: order.append("returned"))
    assert waiter.is_away.wait(PATIENCE)
    _busy(pool, busy)
    queued = pool.submit(_noting(order, "queued"))
    gate.set()
    eventually(lambda: pool._returning)
    busy.set()
    queued.result(PATIENCE)
    assert order == ["returned", "queued"]


def test_a_call_that_somebody_waits_for_gets_a_thread_before_others(pools: Pools, order: list[str]) -> None:
    """A child, which its parent waits for somewhere; and what a thread is away for, however it was queued."""
    pool, gate, busy = pools(1), pools.gate(), pools.gate()
    _busy(pool, busy)
    futures = [
        pool.begin("root", _noting(order, "root"), wanted=False),
        pool.begin("awaited", _noting(order, "awaited"), wanted=False),
        pool.begin("child", _noting(order, "child"), wanted=True),
    ]
    waiter = Waiter(pool, gate, awaits="awaited")
    futures.insert(0, pool.begin("parent", waiter, wanted=True))  # type: ignore[arg-type]
    busy.set()
    gate.set()
    for one in futures:
        one.result(PATIENCE)
    assert order.index("root") == 2


def test_a_wait_for_another_call_at_the_thread_limit_raises_and_names_the_setting(pools: Pools) -> None:
    pool, gate = pools(4, waiting_limit=2), pools.gate()
    waiters = [Waiter(pool, gate) for _ in range(2)]
    waiting = [pool.begin(number, one, wanted=True) for number, one in enumerate(waiters)]
    assert all(one.is_away.wait(PATIENCE) for one in waiters)
    refused = pool.begin("third", Waiter(pool, gate), wanted=True)
    with pytest.raises(ThreadLimitError, match=r"this call cannot wait: 2 sync workflows .* `waiting_threads`"):
        refused.result(PATIENCE)
    gate.set()
    assert [one.result(PATIENCE) for one in waiting] == ["back"] * 2


def test_a_wait_that_ends_by_itself_keeps_its_thread_at_the_limit(pools: Pools) -> None:
    pool, gate = pools(2, waiting_limit=1), pools.gate()
    first = Waiter(pool, gate)
    pool.begin("first", first, wanted=True)
    assert first.is_away.wait(PATIENCE)
    second = Waiter(pool, gate, limit="stay")
    staying = pool.begin("second", second, wanted=True)
    assert second.is_away.wait(PATIENCE)
    assert (pool._away, pool._free) == (1, 1)
    gate.set()
    assert staying.result(PATIENCE) == "back"


def test_calls_that_nobody_waits_for_leave_the_last_waiting_threads_to_others(pools: Pools) -> None:
    """Or a crowd of parents would be refused their waits, where now the rest of them begins a little later."""
    pool, gate = pools(2, waiting_limit=8), pools.gate()
    roots = [pool.submit(Waiter(pool, gate)) for _ in range(20)]
    eventually(lambda: pool._away >= 6 and pool._free == 2)
    assert pool._away < 8
    assert pool.begin("child", lambda: "ran", wanted=True).result(PATIENCE) == "ran"
    gate.set()
    assert [one.result(PATIENCE) for one in roots] == ["back"] * 20


@pytest.mark.parametrize(("limit", "waiting_limit"), [(1, 1), (4, 1), (4, 4), (4, 5), (64, 64)])
def test_a_waiting_call_keeps_nobody_from_running_where_few_may_wait(
    pools: Pools, limit: int, waiting_limit: int
) -> None:
    """A sleep may take days, and nobody waits for the others but their callers."""
    pool, gate = pools(limit, waiting_limit=waiting_limit), pools.gate()
    sleeper = Waiter(pool, gate, limit="stay")
    sleeping = pool.submit(sleeper)
    assert sleeper.is_away.wait(PATIENCE)
    assert pool.submit(lambda: "ran").result(PATIENCE) == "ran"
    gate.set()
    assert sleeping.result(PATIENCE) == "back"


def test_a_place_is_lent_once_for_all_waits_of_its_call(pools: Pools) -> None:
    """Code on the loop may wait for several at a time, while the thread waits for it."""
    pool, busy = pools(1), pools.gate()
    place = Place(pool)
    running = _busy(pool, busy)
    queued = pool.submit(lambda: "ran")
    with place.lent():
        assert queued.result(PATIENCE) == "ran"
        with place.lent():
            assert pool._away == 1
        assert pool._away == 1
    eventually(lambda: (pool._away, pool._free) == (0, 0))
    busy.set()
    assert running.result(PATIENCE)
    eventually(lambda: pool._free == 1)


def test_an_error_in_a_wait_is_raised_although_no_thread_is_free(pools: Pools) -> None:
    """A run that is stopped, or cancelled, must not wait for others that run long."""
    pool, gate, busy = pools(1), pools.gate(), pools.gate()
    away = threading.Event()

    def call() -> None:
        with pool.away("this call", at_the_limit="raise"):
            away.set()
            assert gate.wait(PATIENCE)
            raise ZeroDivisionError

    stopped = pool.submit(call)
    assert away.wait(PATIENCE)
    running = _busy(pool, busy)
    gate.set()
    with pytest.raises(ZeroDivisionError):
        stopped.result(PATIENCE)
    assert not running.done()
    queued = pool.submit(lambda: "ran")
    busy.set()
    assert queued.result(PATIENCE) == "ran"
    eventually(lambda: pool._free == 1)


def test_threads_beyond_the_limit_end_when_they_have_nothing_to_do(pools: Pools) -> None:
    pool, gate = pools(2), pools.gate()
    waiting = [pool.submit(Waiter(pool, gate)) for _ in range(6)]
    gate.set()
    for one in waiting:
        one.result(PATIENCE)
    eventually(lambda: len([one for one in threading.enumerate() if one.name.startswith("test-pool")]) <= 2)


def test_a_closed_pool_drops_what_has_not_begun_and_lets_the_rest_return(pools: Pools) -> None:
    pool, gate, busy = pools(1), pools.gate(), pools.gate()
    waiter = Waiter(pool, gate)
    away = pool.submit(waiter)
    assert waiter.is_away.wait(PATIENCE)
    running = _busy(pool, busy)
    queued = pool.submit(lambda: "ran")
    pool.shutdown()
    assert queued.cancelled()
    gate.set()
    assert away.result(PATIENCE) == "back"  # although the other one still runs
    with pytest.raises(RuntimeError, match="no more work"):
        pool.submit(lambda: None)
    busy.set()
    assert running.result(PATIENCE)


def test_calls_that_no_thread_can_be_made_for_begin_when_one_comes_free(
    pools: Pools, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the system makes no more threads."""
    pool, busy = pools(3), pools.gate()
    running = _busy(pool, busy)
    with patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
        queued = [pool.submit(lambda: "ran") for _ in range(2)]
    assert "the system starts no more threads (can't start new thread)" in caplog.text
    busy.set()
    assert running.result(PATIENCE)
    assert [one.result(PATIENCE) for one in queued] == ["ran"] * 2


def test_calls_that_no_thread_will_ever_take_are_refused(pools: Pools) -> None:
    pool = pools(3)
    with patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
        refused = pool.submit(lambda: "ran")
    with pytest.raises(ThreadLimitError, match="starts no thread"):
        refused.result(PATIENCE)
    assert pool.submit(lambda: "ran").result(PATIENCE) == "ran"


def test_a_thread_outside_the_pool_has_no_place_to_give_up(pools: Pools) -> None:
    pool = pools(1, waiting_limit=1)
    with pool.away("this thread", at_the_limit="raise"):
        assert (pool._away, pool._free) == (0, 1)
