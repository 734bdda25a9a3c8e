"""P7: recovery needs no operator. When a worker dies, closes or hangs, its workflows go on in another, in time."""

from __future__ import annotations

import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, WorkflowStatus
from dbosflow.errors import WorkflowBlockedError
from tests.behaviour import ledger
from tests.behaviour.programs import surviving
from tests.behaviour.tables import disorder, rows
from tests.support import eventually

if TYPE_CHECKING:
    from tests.behaviour.conftest import StartProgram
    from tests.behaviour.program import Program

PATIENCE = 60.0
LONG_LEASE = 600.0
"""One that no test waits for: a workflow that goes on did not wait for its end."""


def start_in(worker: Program, name: str, *args: Any, workflow_id: str = "w") -> None:
    """Starts a workflow of ``surviving`` in the process of a worker."""
    assert worker.ask(start=name, id=workflow_id, args=args) == {"started": workflow_id}


def ticks_of(program: Program) -> int:
    """How many ticks a process has done."""
    return sum(entry.pid == program.pid for entry in ledger.entries())


def has_ticked(program: Program, times: int) -> bool:
    """Whether a process has done so many ticks."""
    return ticks_of(program) >= times


@pytest.mark.parametrize("queues", [None, ["q"]], ids=["started in process", "queued"])
def test_a_killed_workers_workflows_go_on_at_once_on_the_same_host(
    database_url: str, start_program: StartProgram, client: Engine, queues: list[str] | None
) -> None:
    """A process that is gone needs no lease to run out: it would take ten minutes here."""
    options: dict[str, Any] = {"module": "surviving", "settings": {"lease": LONG_LEASE}}
    if queues:
        options["queues"] = queues
    workers = [start_program("worker", **options) for _ in range(2)]
    if queues:
        client.start(surviving.ticking.options(workflow_id="w", queue="q"), 60, 0.01)
    else:
        start_in(workers[0], "ticking", 60, 0.01)
    eventually(lambda: len(ledger.entries()) >= 10)
    owner, successor = sorted(workers, key=ticks_of, reverse=True)
    owner.kill()
    assert client.handle("w", surviving.ticking).result(timeout=PATIENCE) == 60
    assert ticks_of(owner) >= 10
    assert ticks_of(owner) + ticks_of(successor) in (60, 61), "at most the step under way was done again"
    assert client.read_stream("w", "ticks").read_all() == (list(range(60)), True)
    assert client.handle("w").info().recoveries == 1
    reasons = rows(database_url, "SELECT ended_because FROM dbosflow.worker WHERE state = 'dead'")
    assert reasons == [("vanished",)]
    assert disorder(database_url) == []


def test_everything_that_a_killed_worker_ran_goes_on(
    database_url: str, start_program: StartProgram, client: Engine
) -> None:
    """Not one of a hundred is forgotten, and none is run by two."""
    settings = {"lease": LONG_LEASE}
    owner = start_program("worker", module="surviving", settings=settings)
    successors = [start_program("worker", module="surviving", settings=settings) for _ in range(2)]
    ids = [f"w{number}" for number in range(100)]
    for workflow_id in ids:
        owner.send(start="ticking", id=workflow_id, args=[8, 0.05])
    for _ in ids:
        owner.receive()
    owner.kill()
    assert [client.handle(one, surviving.ticking).result(timeout=PATIENCE) for one in ids] == [8] * 100
    for workflow_id in ids:
        assert client.read_stream(workflow_id, "ticks").read_all() == (list(range(8)), True)
    assert sum(ticks_of(successor) for successor in successors) > 0
    assert disorder(database_url) == []


def test_a_restart_of_the_only_worker_resumes_at_once(start_program: StartProgram, client: Engine) -> None:
    """Nobody saw it die; the next one to open finds what it left."""
    settings = {"lease": LONG_LEASE}
    worker = start_program("worker", module="surviving", settings=settings)
    start_in(worker, "ticking", 40, 0.01)
    for _ in range(3):
        eventually(partial(has_ticked, worker, 5))
        worker.kill()
        worker = start_program("worker", module="surviving", settings=settings)
    assert client.handle("w", surviving.ticking).result(timeout=PATIENCE) == 40
    assert max(Counter(ledger.noted()).values()) <= 4
    assert client.read_stream("w", "ticks").read_all() == (list(range(40)), True)


def test_an_engine_that_closes_hands_over_at_once(
    database_url: str, start_program: StartProgram, client: Engine
) -> None:
    """It gives its lease up; its peers are notified, and need neither the lease nor a poll."""
    settings = {"lease": LONG_LEASE, "safety_poll": LONG_LEASE, "fast_poll": LONG_LEASE}
    workers = [start_program("worker", module="surviving", settings=settings) for _ in range(2)]
    start_in(workers[0], "ticking", 60, 0.01)
    eventually(lambda: ticks_of(workers[0]) >= 10)
    workers[0].leave()
    assert client.handle("w", surviving.ticking).result(timeout=PATIENCE) == 60
    assert Counter(ledger.noted()) == {f"tick {number}": 1 for number in range(60)}, "nothing had to be done again"
    assert client.handle("w").info().recoveries == 0, "a release is no death"
    reasons = rows(database_url, "SELECT ended_because FROM dbosflow.worker WHERE state = 'dead'")
    assert reasons == [("released",)]
    assert disorder(database_url) == []


def test_steps_under_way_have_the_grace_to_finish(start_program: StartProgram, client: Engine) -> None:
    """A closing engine lets them end and be recorded, and begins no other."""
    workers = [start_program("worker", module="surviving", settings={"grace": PATIENCE}) for _ in range(2)]
    start_in(workers[0], "lingering_twice", 1.0)
    eventually(lambda: ledger.noted() == ["first begins"])
    workers[0].leave()
    assert client.handle("w").result(timeout=PATIENCE) == ["first", "second"]
    assert ledger.noted() == ["first begins", "first ends", "second begins", "second ends"]
    assert [entry.pid for entry in ledger.entries()] == [workers[0].pid] * 2 + [workers[1].pid] * 2


def test_a_draining_worker_hands_over_what_is_idle_at_once(
    database_url: str, start_program: StartProgram, client: Engine
) -> None:
    """One long step keeps its own workflow for the grace, and no other."""
    settings = {"grace": PATIENCE, "lease": LONG_LEASE, "safety_poll": LONG_LEASE, "fast_poll": LONG_LEASE}
    workers = [start_program("worker", module="surviving", settings=settings) for _ in range(2)]
    start_in(workers[0], "ticking", 60, 0.01)
    eventually(lambda: ticks_of(workers[0]) >= 5)
    start_in(workers[0], "lingering_twice", 3.0, workflow_id="lingers")
    eventually(lambda: "first begins" in ledger.noted())
    workers[0].leave()
    assert client.handle("lingers").result(timeout=PATIENCE) == ["first", "second"]
    assert client.handle("w").result(timeout=PATIENCE) == 60
    ended = ledger.noted().index("first ends")
    assert workers[1].pid in {entry.pid for entry in ledger.entries()[:ended]}
    assert Counter(ledger.noted()).most_common(1)[0][1] == 1, "nothing had to be done again"
    assert disorder(database_url) == []


def test_steps_that_outlive_the_grace_are_left_to_the_next_owner(start_program: StartProgram, client: Engine) -> None:
    """What takes longer than the grace is left, and done again by the next owner."""
    workers = [start_program("worker", module="surviving", settings={"grace": 0.1}) for _ in range(2)]
    start_in(workers[0], "lingering_twice", 1.0)
    eventually(lambda: ledger.noted() == ["first begins"])
    workers[0].leave()
    assert client.handle("w").result(timeout=PATIENCE) == ["first", "second"]
    assert ledger.noted() == ["first begins", "first begins", "first ends", "second begins", "second ends"]


def keep_alive(start_program: StartProgram, client: Engine, **settings: Any) -> None:
    """Replaces each worker that dies, until workflow ``w`` has ended or is blocked."""
    options: dict[str, Any] = {"module": "surviving", "queues": ["q"], "settings": settings}
    workers = [start_program("worker", **options) for _ in range(2)]
    deadline = time.monotonic() + PATIENCE
    handle = client.handle("w")
    while not ((status := handle.status()).ended or status is WorkflowStatus.BLOCKED):
        assert time.monotonic() < deadline
        for position, worker in enumerate(workers):
            if not worker.running:
                workers[position] = start_program("worker", **options)
    assert any(worker.running for worker in workers)


def test_a_workflow_that_kills_its_owners_is_parked(
    database_url: str, start_program: StartProgram, client: Engine
) -> None:
    """After ``max_recoveries`` deaths without a new record it takes no more workers down; it says why, and stays."""
    handle = client.start(surviving.killing_its_owners.options(workflow_id="w", queue="q"), 1, 1000)
    keep_alive(start_program, client, max_recoveries=3)
    assert handle.status() is WorkflowStatus.BLOCKED
    assert ledger.noted() == ["death before 0"] * 3
    with pytest.raises(WorkflowBlockedError, match="3 times") as caught:
        handle.result(timeout=PATIENCE)
    assert caught.value.workflow_id == "w"
    assert client.read_stream("w", "k").read_all() == ([], False)
    info = handle.info()
    assert (info.worker_id, info.recoveries) == (None, 3)
    assert disorder(database_url) == []


def test_a_workflow_that_gets_on_between_deaths_is_not_parked(start_program: StartProgram, client: Engine) -> None:
    """Progress counts: bad luck with workers is no fault of the workflow's."""
    handle = client.start(surviving.killing_its_owners.options(workflow_id="w", queue="q"), 2, 2)
    keep_alive(start_program, client, max_recoveries=3)
    assert handle.result(timeout=PATIENCE) == "survived"
    assert len(ledger.entries()) == 2 * 2 + 2


def test_a_worker_that_does_not_know_a_workflow_leaves_it_to_one_that_does(
    start_program: StartProgram, client: Engine
) -> None:
    """Also in recovery: it stays queued until somebody can run it."""
    settings = {"lease": LONG_LEASE}
    owner = start_program("worker", module="surviving", settings=settings)
    start_program("worker", module="queueing", settings=settings)
    start_in(owner, "ticking", 20, 0.01)
    eventually(lambda: ticks_of(owner) >= 5)
    owner.kill()
    handle = client.handle("w", surviving.ticking)
    eventually(lambda: handle.status() is WorkflowStatus.QUEUED)
    start_program("worker", module="surviving", settings=settings)
    assert handle.result(timeout=PATIENCE) == 20
