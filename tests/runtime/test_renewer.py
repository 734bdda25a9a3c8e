"""The thread that renews: it outlives its connection, and says when the lease is over."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import errors

from dbosflow import Engine, step, workflow
from dbosflow._runtime.leases import renewer as renewer_module
from dbosflow._runtime.leases import worker_lease
from dbosflow._runtime.leases.renewer import LeaseRenewer
from dbosflow._runtime.leases.worker_lease import WorkerLease
from dbosflow._store import worker
from dbosflow._store.queries import fetch_all
from dbosflow.config import Settings
from dbosflow.errors import PermissionDeniedError
from tests.runtime.sessions import RENEWING, cut, no_pool, sessions
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

LEASE = 0.5


def renewed_at(url: str) -> Any:
    """When the only lease was renewed last, and whether it lives."""
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute("SELECT renewed_at, state FROM dbosflow.worker").fetchone()


def with_renewer(url: str, look: Callable[[WorkerLease, list[None]], None]) -> None:
    """A lease that is renewed, and what is called when it is over."""

    async def main() -> None:
        settings = Settings(lease=LEASE)
        lease = WorkerLease(url, settings, no_pool(url), on_new_timeline=lambda: None)
        async with lease.lock:
            await lease.open()
        over: list[None] = []
        renewer = LeaseRenewer(url, settings, lease, lambda: over.append(None), no_pool(url))
        renewer.open()
        try:
            await asyncio.to_thread(look, lease, over)
        finally:
            await renewer.close()
            await lease.disconnect()

    asyncio.run(main())


def test_a_lease_is_renewed_over_a_new_connection_when_the_old_one_is_cut(database_url: str) -> None:
    """Well within the lease."""

    def look(lease: WorkerLease, over: list[None]) -> None:
        for _ in range(3):
            before = eventually(lambda: sessions(database_url, RENEWING) and renewed_at(database_url))
            cut(database_url, RENEWING)
            eventually(lambda before=before: renewed_at(database_url) > before)  # type: ignore[misc]
            eventually(lambda: lease.in_time)
        assert over == []

    with_renewer(database_url, look)


async def test_a_connection_that_falls_silent_is_closed_while_the_lease_lasts(database_url: str) -> None:
    """By the kernel, which does that for nobody else before a lease is over."""
    lease: Any = WorkerLease(database_url, Settings(lease=8.0), no_pool(database_url), on_new_timeline=lambda: None)
    renewer = LeaseRenewer(database_url, Settings(lease=8.0), lease, lambda: None, no_pool(database_url))
    renewer._renew()
    assert renewer._connection is not None
    assert renewer._connection.info.get_parameters()["tcp_user_timeout"] == "4000"
    renewer._disconnect()


def test_a_lease_that_is_over_is_told_and_not_revived(database_url: str) -> None:
    """Its runs may be owned elsewhere by now."""

    def look(lease: WorkerLease, over: list[None]) -> None:
        eventually(lambda: sessions(database_url, RENEWING))
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("UPDATE dbosflow.worker SET state = 'dead'")
        before = renewed_at(database_url)
        eventually(lambda: over)
        assert renewed_at(database_url) == before

    with_renewer(database_url, look)


class PlayedLease:
    """A lease of no database."""

    def __init__(self, renewed: Callable[[float], None]) -> None:
        self.id = uuid4()
        self.renewed = renewed

    def begin_another(self) -> None:
        self.id = uuid4()


class Renewal:
    """One renewal after the other, of a lease and over a connection that are not real."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.renewed: list[float] = []
        self.lease = PlayedLease(self.renewed.append)
        self.over: list[None] = []
        self.connected: list[dict[str, Any]] = []
        self.meanwhile: Callable[[], object] = lambda: None
        """What happens while the answer is on its way."""
        self.lives = True
        self.renewer = asyncio.run(self._made(Settings(lease=60.0, pooled=True)))
        monkeypatch.setattr(renewer_module, "connect", self._connect)
        monkeypatch.setattr(worker, "renew", self._renew)

    async def _made(self, settings: Settings) -> LeaseRenewer:
        return LeaseRenewer("url", settings, self.lease, lambda: self.over.append(None), no_pool("url"))

    def _connect(self, _: str, **options: Any) -> Any:
        self.connected.append(options)
        return SimpleNamespace(closed=False, close=lambda: None)

    def _renew(self, _: Any, __: str, ids: list[Any]) -> set[Any]:
        self.meanwhile()
        return {*ids} if self.lives else set()


def test_a_lease_is_renewed_several_times_while_it_lasts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """So one renewal may fail, and is then tried again soon; between others there is the same pause always."""
    one, pauses = Renewal(monkeypatch), list[float]()

    def goes_on(pause: float) -> bool:
        pauses.append(pause)
        return len(pauses) < 6

    def fail_at_the_third() -> None:
        if len(pauses) == 3:
            raise OSError("cut")

    one.meanwhile = fail_at_the_third
    monkeypatch.setattr(one.renewer, "goes_on", goes_on)
    one.renewer.run()
    assert pauses.pop(3) < 1
    assert len({*pauses}) == 1
    assert 0 < pauses[0] <= 60 / 3
    assert len(one.renewed) == 4
    assert [record.levelname for record in caplog.records if "was not renewed: cut" in record.message] == ["WARNING"]


def test_a_renewers_connecting_takes_no_more_than_a_part_of_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then there is time for another host; and a pooler is connected to as it must be."""
    one = Renewal(monkeypatch)
    one.renewer._renew()
    (options,) = one.connected
    assert options["timeout"] <= 60 / 3
    assert options["pooled"] is True


def test_a_renewal_counts_from_when_it_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer may be slow; the database counts from before that."""
    one, received = Renewal(monkeypatch), list[float]()
    one.meanwhile = lambda: received.append(time.monotonic())
    one.renewer._renew()
    assert one.renewed[0] <= received[0]
    lease = WorkerLease("url", Settings(lease=LEASE), no_pool("url"), on_new_timeline=lambda: None)
    assert not lease.in_time
    lease.renewed(time.monotonic() - 2 * LEASE)
    assert not lease.in_time
    lease.renewed(time.monotonic())
    assert lease.in_time


@pytest.mark.parametrize("lives", [True, False])
def test_an_answer_about_the_lease_before_says_nothing_of_the_new_one(
    monkeypatch: pytest.MonkeyPatch, *, lives: bool
) -> None:
    """The worker took another lease while it was on its way: that is neither renewed by it nor over."""
    one = Renewal(monkeypatch)
    one.lives = lives
    one.meanwhile = one.lease.begin_another
    one.renewer._renew()
    assert (one.renewed, one.over) == ([], [])
    one.meanwhile = lambda: None
    one.renewer._renew()
    assert (len(one.renewed), len(one.over)) == ((1, 0) if lives else (0, 1))


async def test_a_worker_past_its_own_deadline_begins_no_step(database_url: str) -> None:
    """Somebody else may own the run already. It goes on when the lease turns out to be its own still."""
    began: list[float] = []

    @step
    async def work() -> None:
        began.append(time.monotonic())

    @workflow
    async def flow() -> None:
        await work()

    async with Engine(database_url, lease=1000) as engine:
        assert engine._core._executor is not None
        lease = engine._core._executor.lease
        lease.deadline = 0.0
        handle = await engine.start_async(flow)
        for _ in range(200):
            await asyncio.sleep(0)
        assert began == []
        lease.renewed(time.monotonic())
        await handle.result_async(10)
        assert len(began) == 1


@pytest.mark.parametrize("error", [errors.UndefinedFunction("no"), PermissionDeniedError("no")], ids=str)
async def test_a_timeline_that_cannot_be_seen_is_said_once(
    database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """A worker can do without it; but after a failover that loses commits its runs would go on from memory."""

    async def fetch(connection: Any, schema: str, table: str, name: str, **values: Any) -> Any:
        if name == "timeline":
            raise error
        return await fetch_all(connection, schema, table, name, **values)

    monkeypatch.setattr(worker_lease, "fetch_all", fetch)
    lease = WorkerLease(database_url, Settings(), no_pool(database_url), on_new_timeline=lambda: None)
    async with lease.lock:
        await lease.open()
        for _ in range(3):
            await lease.disconnect()
            await lease.connection()
        await lease.disconnect()
    assert [record.levelname for record in caplog.records if "timeline" in record.message] == ["WARNING"]


def test_code_that_holds_the_loop_up_does_not_cost_the_lease(database_url: str) -> None:
    """Renewals have a thread and a connection of their own."""

    @workflow
    async def busy() -> None:
        until = time.monotonic() + 4 * LEASE
        while time.monotonic() < until:
            pass

    with Engine(database_url, lease=LEASE) as engine:
        handle = engine.start(busy)
        handle.result(20)
        info = handle.info()
        assert (info.epoch, info.recoveries) == (1, 0)


def test_the_thread_that_renews_outlives_whatever_a_renewal_meets(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it every lease of the process would be lost, one after the other, and nobody would say why."""
    renew, failures = worker.renew, 2

    def fail(*args: Any) -> Any:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise TypeError("not of the database's")
        return renew(*args)

    monkeypatch.setattr(worker, "renew", fail)

    def look(lease: WorkerLease, _: list[None]) -> None:
        before = renewed_at(database_url)
        eventually(lambda: renewed_at(database_url) != before)
        assert failures < 0
        assert lease.in_time

    with_renewer(database_url, look)
