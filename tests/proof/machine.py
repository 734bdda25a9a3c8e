"""What the models have in common: a database, and a loop that runs while a rule does."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import hypothesis
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from dbosflow._runtime.queues.claimer import RECOVERY_QUEUE
from dbosflow._store.notify import queue_topic
from tests.protocol.schedules import PATIENCE, Database

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from dbosflow import Engine
    from dbosflow._runtime.engine.executor import Executor

T = TypeVar("T")

_TABLES = ("workflow", "step", "stream_block", "stream_trim", "worker", "waiter", "dedup", "schedule")
EMPTY = "; ".join(f"DELETE FROM dbosflow.{table}" for table in _TABLES)
"""Of few rows. TRUNCATE makes new files for each table and index, which takes ten times as long."""


class Bench:
    """A loop and a database for all examples of a model."""

    def __init__(self, runner: asyncio.Runner, db: Database) -> None:
        self._runner = runner
        self.db = db

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs to its end."""
        return self._runner.run(coroutine)

    def empty(self) -> None:
        """A database as on the first day."""
        self.run(self.db.rows(EMPTY))


@contextmanager
def bench(url: str) -> Iterator[Bench]:
    """A bench, and nothing that stays behind it."""
    with asyncio.Runner() as runner:
        db = Database(url)
        runner.run(db.__aenter__())
        try:
            yield Bench(runner, db)
        finally:
            runner.run(db.__aexit__(None, None, None))


class Machine(RuleBasedStateMachine):
    """A model and the real thing, side by side. Each rule does the same to both; the invariants compare them."""

    def __init__(self, at: Bench) -> None:
        super().__init__()
        self.bench = at
        self.db = at.db
        at.empty()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a part of a rule to its end."""
        return self.bench.run(coroutine)

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """What a query finds."""
        return self.run(self.db.rows(query, *values))


async def lose_the_lease(db: Database, engine: Engine) -> None:
    """Has a living engine's lease declared dead, as by somebody who could not see it; returns when it has a new one."""
    core: Any = engine._core
    executor: Executor = core._executor
    lost = executor.lease.id
    await db.rows(
        """UPDATE dbosflow.worker SET state = 'dead', ended_at = now(), ended_because = 'expired'
           WHERE id = (SELECT id FROM dbosflow.worker WHERE id = %s FOR UPDATE)""",
        lost,
    )
    await db.requeue(max_recoveries=1 << 30)
    executor.journal.lease_is_over()
    async with asyncio.timeout(PATIENCE):
        while executor.journal._lease_is_over:  # noqa: ASYNC110 (nothing signals it); the new one has its id before its row
            await asyncio.sleep(0.001)
    core.services.wakeups.wake([queue_topic(RECOVERY_QUEUE)])  # as the reclaimer's announcement would


def check(
    make: Callable[[Bench], Machine],
    url: str,
    *,
    examples: int,
    steps: int,
    seed: int | None = None,
    shrinks: bool = True,
) -> None:
    """Runs so many examples of so many steps: always the same ones, unless a seed makes others of them."""
    phases = {*hypothesis.Phase} - (
        {hypothesis.Phase.explain} if shrinks else {hypothesis.Phase.explain, hypothesis.Phase.shrink}
    )
    with bench(url) as at:

        def machine() -> Machine:
            return make(at)

        run_state_machine_as_test(
            cast("type[RuleBasedStateMachine]", machine if seed is None else hypothesis.seed(seed)(machine)),
            settings=hypothesis.settings(
                max_examples=examples,
                stateful_step_count=steps,
                derandomize=seed is None,
                phases=[phase for phase in hypothesis.Phase if phase in phases],
                database=None,
                deadline=None,
                print_blob=False,
                suppress_health_check=[*hypothesis.HealthCheck],
            ),
            _min_steps=steps // 2,
        )
