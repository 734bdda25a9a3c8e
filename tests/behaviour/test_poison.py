"""A workflow that kills its workers is parked, and harms no neighbour: what sleeps or works beside it goes on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import WorkflowStatus
from tests.behaviour.ledger import noted
from tests.behaviour.programs import poisonous
from tests.behaviour.tables import disorder, rows
from tests.support import eventually

if TYPE_CHECKING:
    from dbosflow import Engine, WorkflowHandle
    from tests.behaviour.conftest import StartProgram
    from tests.behaviour.program import Program

PATIENCE = 100.0
MAX_RECOVERIES = 5
"""Three of them together with others, and two alone."""


def replaced(start_program: StartProgram, workers: list[Program], count: int, concurrency: int) -> None:
    """Starts so many workers, each that died anew."""
    workers[:] = [worker for worker in workers if worker.running]
    while len(workers) < count:
        settings = {"max_recoveries": MAX_RECOVERIES, "lease": 2.0}
        options: dict[str, Any] = {"queues": ["q"], "concurrency": concurrency, "settings": settings}
        workers.append(start_program("worker", module="poisonous", **options))


def until_parked(
    start_program: StartProgram, poisons: list[WorkflowHandle[Any]], *, count: int = 1, concurrency: int = 50
) -> None:
    """Keeps workers alive until all of the poisons are parked."""
    workers: list[Program] = []
    deadline = time.monotonic() + PATIENCE
    while any(handle.status() is not WorkflowStatus.BLOCKED for handle in poisons):
        assert time.monotonic() < deadline, rows_of(poisons)
        replaced(start_program, workers, count, concurrency)
        eventually(
            lambda: (
                any(not worker.running for worker in workers)
                or all(handle.status() is WorkflowStatus.BLOCKED for handle in poisons)
            )
        )
    replaced(start_program, workers, count, concurrency)


def rows_of(handles: list[WorkflowHandle[Any]]) -> list[tuple[str, str, int]]:
    """How they stand."""
    return [(info.id, str(info.status), info.recoveries) for info in (handle.info() for handle in handles)]


@pytest.mark.parametrize(
    "how", [{}, {"value_in_step": True}, {"value": True}, {"sleep": True}], ids=lambda how: "".join(how) or "at once"
)
def test_a_sleeping_workflow_is_not_parked_with_one_that_kills_workers(
    client: Engine, database_url: str, start_program: StartProgram, how: dict[str, Any]
) -> None:
    """Whatever the poison does first; a value or a sleep counts as progress once."""
    sleepers = [client.start(poisonous.sleeper.options(queue="q"), 3.0) for _ in range(5)]
    poison = client.start(poisonous.poison.options(queue="q"), **how)
    until_parked(start_program, [poison])
    assert [handle.result(timeout=PATIENCE) for handle in sleepers] == ["woken"] * 5
    assert noted().count("death") <= MAX_RECOVERIES + 1
    assert disorder(database_url) == []


def test_two_poisons_on_two_workers_are_both_parked(
    client: Engine, database_url: str, start_program: StartProgram
) -> None:
    sleepers = [client.start(poisonous.sleeper.options(queue="q"), 5.0) for _ in range(50)]
    poisons = [client.start(poisonous.poison.options(queue="q")) for _ in range(2)]
    until_parked(start_program, poisons, count=2)
    assert [handle.result(timeout=PATIENCE) for handle in sleepers] == ["woken"] * 50
    assert disorder(database_url) == []


def test_a_child_that_kills_workers_before_it_has_a_row_is_parked_in_the_end(
    client: Engine, database_url: str, start_program: StartProgram
) -> None:
    """And not its parent, to which the first death is put down."""
    parent = client.start(poisonous.poisoned_parent.options(queue="q"))
    child_id = f"{parent.workflow_id}/poisonous_child#0"
    workers: list[Program] = []
    replaced(start_program, workers, 1, 50)
    assert eventually(lambda: not workers[0].running)
    assert rows(database_url, "SELECT FROM dbosflow.workflow WHERE id = %s", child_id) == []
    replaced(start_program, workers, 1, 50)
    assert eventually(lambda: rows(database_url, "SELECT FROM dbosflow.workflow WHERE id = %s", child_id))
    until_parked(start_program, [client.handle(child_id)])
    assert parent.status() is not WorkflowStatus.BLOCKED
    assert noted().count("death") <= MAX_RECOVERIES + 2
    assert disorder(database_url) == []


@pytest.mark.parametrize("concurrency", [1, 50])
def test_a_queue_goes_on_behind_a_poison(
    client: Engine, database_url: str, start_program: StartProgram, concurrency: int
) -> None:
    """It dies as often as it may, and no more of them wait for it."""
    poison = client.start(poisonous.poison.options(queue="q"))
    bees = [client.start(poisonous.worker_bee.options(queue="q"), number) for number in range(20)]
    until_parked(start_program, [poison], concurrency=concurrency)
    assert [handle.result(timeout=PATIENCE) for handle in bees] == list(range(20))
    assert noted().count("death") == MAX_RECOVERIES
    assert rows(database_url, "SELECT count(*) FROM dbosflow.workflow WHERE status = 'blocked'") == [(1,)]


def test_a_sleeping_workflow_outlives_machines_that_fail_again_and_again(
    client: Engine, database_url: str, start_program: StartProgram
) -> None:
    """All workers are killed at once, more often than a workflow may be recovered in a row.

    They fail while everything sleeps. A suspect that is still looked at does not yet count as a sleeper: a worker
    that dies then accuses it. The time to wake comes after the last failure, so that each meets the same sleeps.
    """
    unsettled = (
        "SELECT id FROM dbosflow.workflow WHERE status = 'queued'"
        " UNION ALL SELECT suspect FROM dbosflow.worker WHERE state = 'live' AND suspect IS NOT NULL"
    )
    sleepers = [client.start(poisonous.sleeper.options(queue="q"), 600.0) for _ in range(5)]
    for _ in range(MAX_RECOVERIES + 2):
        workers: list[Program] = []
        replaced(start_program, workers, 2, 50)
        eventually(lambda: rows(database_url, unsettled) == [])
        for worker in workers:
            worker.kill()
    rows(database_url, "UPDATE dbosflow.step SET wake_at = now() WHERE wake_at IS NOT NULL RETURNING key")
    replaced(start_program, [], 1, 50)
    assert [handle.result(timeout=PATIENCE) for handle in sleepers] == ["woken"] * 5
