"""The world as a reclaimer sees it, simulated: the database's clock, its own, and the workers that a survey shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID, uuid4

import psycopg

from dbosflow._store.worker import ProcessIdentity, SurveyedLease

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbosflow._runtime.leases.reclaimer import Reclaimer

LEASE = 10.0
ELSEWHERE = ProcessIdentity("elsewhere", None, None, 1, None)
EPOCH = datetime(2030, 1, 1, tzinfo=UTC)


class NoConnection:
    """A pool for tests that send nothing."""

    def connection(self) -> Self:
        """Nor does it give any."""
        return self

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        return None


class World:
    """The database's clock, the reclaimer's own, and the workers that a survey shows."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.jump = 0.0
        """How far the database's clock has jumped away from ours."""
        self.server_started_at = -1e6
        self.renewed: dict[UUID, float] = {}
        self.processes: dict[UUID, ProcessIdentity] = {}
        self.marked: list[tuple[UUID, str]] = []
        self.busy: set[UUID] = set()
        self.statements: list[str] = []
        self.failing = False
        self.reclaimer: Reclaimer

    @property
    def clock(self) -> float:
        """The database's."""
        return self.now + self.jump

    def worker(self, process: ProcessIdentity = ELSEWHERE) -> UUID:
        """One that is renewed now."""
        worker_id = uuid4()
        self.renewed[worker_id] = self.clock
        self.processes[worker_id] = process
        return worker_id

    async def survey(self, *_: Any) -> list[SurveyedLease]:
        """What the database would say."""
        self.statements.append("survey")
        if self.failing:
            raise psycopg.OperationalError("lost")
        return [
            SurveyedLease(
                id=worker_id,
                renewed_at=EPOCH + timedelta(seconds=renewed),
                lease=LEASE,
                silent=self.clock - renewed,
                clock=self.clock,
                server_age=self.now - self.server_started_at,
                process=self.processes[worker_id],
            )
            for worker_id, renewed in self.renewed.items()
        ]

    async def mark_dead(self, _: Any, __: Any, leases: Sequence[SurveyedLease], because: str) -> set[UUID]:
        """Marks those that are not busy."""
        self.statements.append("mark")
        dead = {lease.id for lease in leases} - self.busy
        for worker_id in dead:
            self.marked.append((worker_id, because))
            del self.renewed[worker_id]
        return dead

    async def requeue(self, *_: Any, **__: Any) -> list[Any]:
        """Nothing to return."""
        self.statements.append("requeue")
        return []

    async def forget(self, *_: Any) -> None:
        """There are no rows of the dead."""
        self.statements.append("forget")

    async def pass_time(self, seconds: float, *, renewing: Sequence[UUID] = (), step: float = LEASE / 4) -> None:
        """Surveys every quarter of a lease, in which some workers are renewed."""
        until = self.now + seconds
        while self.now < until:
            self.now = min(self.now + step, until)
            for worker_id in renewing:
                self.renewed[worker_id] = self.clock
            await self.reclaimer.work_once()

    async def check_expiry(self, silent: UUID, *, within: float = 0.1, renewing: Sequence[UUID] = ()) -> None:
        """Nobody is dead a lease from now; ``within`` so many seconds more the silent worker is, and no other."""
        await self.pass_time(LEASE, renewing=renewing)
        assert self.marked == []
        await self.pass_time(within, renewing=renewing)
        assert self.marked == [(silent, "expired")]
