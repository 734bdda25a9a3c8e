"""The service that suspends runs: whose workers may keep it from that, and what it leaves to others."""

from __future__ import annotations

import threading
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import psycopg
import pytest

from dbosflow import Engine, WorkflowStatus, create_token, recv, recv_async, set_event, workflow
from dbosflow._runtime.execution import suspender
from dbosflow._runtime.execution.thread_driver import ThreadDriver
from dbosflow._runtime.operations.receiving import Taken
from dbosflow._runtime.queues import sweeper
from dbosflow._runtime.queues.sweeper import Sweeper
from dbosflow._runtime.runs.durable_waits import Standing
from dbosflow._runtime.wakeups.topics import Wakeups
from dbosflow._runtime.wakeups.waker import Waker
from dbosflow._store import waiter, worker
from dbosflow._store.notify import DEATH_TOPIC, WORKERS_TOPIC
from dbosflow._store.waiter import WaiterPage
from dbosflow.config import Settings
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATIENCE = 60.0


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a replay takes."""
    monkeypatch.setattr(suspender, "REPLAYS", 0.0)


@workflow(name="suspender receiver")
async def receiver() -> str:
    received: str = await recv_async(type=str)
    return received


def test_only_workers_from_before_suspensions_keep_runs_in_memory(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that cannot wake them, and not just one of an older version than this one."""
    monkeypatch.setattr(suspender, "VERSION", "9.9.9", raising=False)
    looks: list[list[str]] = []
    look = worker.older_than

    async def looking(*asked: Any) -> list[str]:
        looks.append(await look(*asked))
        return looks[-1]

    monkeypatch.setattr(worker, "older_than", looking)
    with (
        Engine(database_url, suspend_after=0.02) as engine,
        psycopg.connect(database_url, autocommit=True) as connection,
    ):
        connection.execute(
            "INSERT INTO dbosflow.worker (id, lease, host, pid, version) "
            "VALUES (gen_random_uuid(), 3600, 'attic', 7, '0.0.9'), (gen_random_uuid(), 3600, 'cellar', 8, %s)",
            [suspender.SINCE],
        )
        handle = engine.start(receiver.options(workflow_id="w"))
        eventually(lambda: bool(looks))
        assert looks[0] == ["attic (process 7, version 0.0.9)"]
        assert handle.status() is WorkflowStatus.RUNNING
        connection.execute("UPDATE dbosflow.worker SET state = 'dead' WHERE host = 'attic'")
        engine._core.announce([WORKERS_TOPIC])
        eventually(lambda: handle.status() is WorkflowStatus.WAITING)
        engine.send("w", "hello")
        assert handle.result(timeout=PATIENCE) == "hello"


async def _nothing(*_: object) -> bool:
    return False


def test_a_worker_that_ends_takes_its_last_look(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came before others had heard that anybody waits has woken nobody, and no other worker knows of that look."""
    monkeypatch.setattr(Waker, "news", lambda *_: None)
    monkeypatch.setattr(Sweeper, "work_once", _nothing)
    monkeypatch.setattr(suspender, "HEARD_WITHIN", 3600.0)
    with Engine(database_url, executes=False) as client:
        with Engine(database_url, suspend_after=0.02) as engine:
            handle = engine.start(receiver.options(workflow_id="w"))
            eventually(lambda: any(one.is_last for one in _looks(engine)))
            client.send("w", "hello")
            assert handle.status() is WorkflowStatus.WAITING
        assert client.handle("w").status() is WorkflowStatus.QUEUED


def _looks(engine: Engine) -> list[Any]:
    core: Any = engine._core
    found: list[Any] = core.executor._suspender._suspended
    return found


class NoPool:
    """A pool whose connections nobody uses."""

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[None]:
        """One of them."""
        yield


class HearingPool:
    """A pool whose process hears of workers as a connection goes back."""

    def __init__(self, wakeups: Wakeups) -> None:
        self._wakeups = wakeups

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[None]:
        """One of them."""
        yield
        self._wakeups.wake_all()


async def test_older_workers_keep_runs_in_memory_whatever_is_heard_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hint that comes with the answer is a reason to ask again, and none to suspend."""
    asked: list[list[str]] = []

    async def looking(*_: Any) -> list[str]:
        asked.append(["attic"])
        return asked[-1]

    monkeypatch.setattr(worker, "older_than", looking)
    wakeups = Wakeups()
    pool, runner = cast("Any", HearingPool(wakeups)), cast("Any", SimpleNamespace(suspended=SimpleNamespace()))
    one = suspender.Suspender(
        pool, Settings(), wakeups, runner=runner, names=list, announce=lambda *_, **__: None, expect=lambda _: None
    )
    for _ in range(2):
        assert await one._older_workers() == ["attic"]
    assert len(asked) == 2


@pytest.mark.parametrize(("heard_within", "sweeps"), [(0.0, 2), (3600.0, 1)])
async def test_a_death_is_followed_by_another_sweep_when_all_have_heard_of_it(
    monkeypatch: pytest.MonkeyPatch, heard_within: float, sweeps: int
) -> None:
    """Who brings something behind the first one, and has not heard yet that anybody waits, wakes nobody."""
    swept: list[tuple[str, str]] = []

    async def page(_connection: object, _schema: str, after: tuple[str, str]) -> WaiterPage:
        swept.append(after)
        return WaiterPage([], [], None if after[0] else ("w", "t"))

    async def nobody(*_: object) -> set[str]:
        return set()

    monkeypatch.setattr(waiter, "page", page)
    monkeypatch.setattr(waiter, "with_news", nobody)
    monkeypatch.setattr(waiter, "in_circles", nobody)
    monkeypatch.setattr(sweeper, "HEARD_WITHIN", heard_within)
    wakeups = Wakeups()
    service: Any = Sweeper(NoPool(), Settings(safety_poll=7200), wakeups, lambda _: None)  # type: ignore[arg-type]
    wakeups.wake([DEATH_TOPIC])
    while await service.work_once():
        pass
    assert swept == [("", ""), ("w", "t")] * sweeps
    assert service._interval <= (3600.0 if sweeps == 1 else 7200.0)


@workflow(name="suspender receiver on thread")
def receiver_on_thread() -> str:
    return str(recv(type=str))


@workflow(name="suspender token on thread")
def token_on_thread() -> str:
    token = create_token()
    set_event("token", token.id)
    return str(token.wait(type=str))


@pytest.mark.parametrize("target", [receiver_on_thread, token_on_thread], ids=["message", "token"])
@pytest.mark.parametrize("notices", [True, False], ids=["noticed", "unnoticed"])
def test_what_has_come_is_not_lost_while_its_thread_has_not_got_to_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch, target: Any, *, notices: bool
) -> None:
    """It is read and not on record: the run stays; and one that would go all the same waits for just that."""
    begun, come, go_on, looks = threading.Event(), threading.Event(), threading.Event(), list[Standing | str]()
    wait, standing = ThreadDriver._wait, Taken.standing

    def slowly(self: ThreadDriver, run: Any, work: Any) -> Any:
        found = wait(self, run, work)
        come.set()
        go_on.wait(PATIENCE)
        return found

    def looking(self: Taken) -> Any:
        message = self.message
        if not notices:
            self.message = None
        found = standing(self)
        self.message = message
        if not come.is_set():
            if isinstance(found, Standing):
                begun.set()
            return "the test"
        looks.append(found)
        return found

    monkeypatch.setattr(ThreadDriver, "_wait", slowly)
    monkeypatch.setattr(Taken, "standing", looking)
    with Engine(database_url, suspend_after=0.02) as engine:
        handle = engine.start(target)
        assert begun.wait(PATIENCE)
        if target is token_on_thread:
            engine.resolve(engine.get_event(handle.workflow_id, "token"), "there")
        else:
            engine.send(handle.workflow_id, "there")
        assert come.wait(PATIENCE)
        eventually(lambda: looks)
        go_on.set()
        assert handle.result(timeout=PATIENCE) == "there"
    if notices:
        assert set(looks) == {"a message that has come"}
