"""P6 and P11: one live owner. A worker that lost its lease writes no more; blocking its own loop does not lose it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.behaviour import ledger
from tests.behaviour.programs import surviving
from tests.behaviour.tables import disorder, rows, stored_values
from tests.support import eventually

if TYPE_CHECKING:
    from dbosflow import Engine
    from tests.behaviour.conftest import StartProgram
    from tests.behaviour.program import Program

PATIENCE = 60.0
LEASE = 1.5


def start_in(worker: Program, name: str, *args: Any) -> None:
    """Starts workflow ``w`` in the process of a worker."""
    assert worker.ask(start=name, id="w", args=args) == {"started": "w"}


def lines_of(program: Program) -> list[str]:
    """What a process has done."""
    return [entry.what for entry in ledger.entries() if entry.pid == program.pid]


def written_by(url: str, epoch: int) -> list[tuple[Any, ...]]:
    """Every row that an epoch wrote."""
    return rows(
        url,
        """SELECT 'step', key, seq::text FROM dbosflow.step WHERE epoch = %s
           UNION ALL SELECT 'block', key, "offset"::text FROM dbosflow.stream_block WHERE epoch = %s
           ORDER BY 1, 2, 3""",
        epoch,
        epoch,
    )


def taken_over(url: str) -> bool:
    """Whether somebody else owns the workflow."""
    return rows(url, "SELECT epoch > 1 AND worker_id IS NOT NULL FROM dbosflow.workflow WHERE id = 'w'") == [(True,)]


@pytest.mark.parametrize("moment", ["between steps", "in a step"])
def test_a_frozen_worker_is_taken_over_and_writes_nothing_when_it_thaws(
    database_url: str, start_program: StartProgram, client: Engine, moment: str
) -> None:
    """Its lease runs out while it is stopped.

    Afterwards its steps and its stream writes leave no row, it begins no step body, and the workflow is whole.
    """
    settings = {"lease": LEASE}
    owner = start_program("worker", module="surviving", settings=settings)
    successor = start_program("worker", module="surviving", settings=settings)
    if moment == "between steps":
        start_in(owner, "ticking", 20, 0.2)  # so it is most likely frozen between two steps
        eventually(lambda: len(lines_of(owner)) >= 5)
    else:
        start_in(owner, "lingering_twice", 3.0)
        eventually(lambda: lines_of(owner) == ["first begins"])
    owner.freeze()
    frozen_at = len(lines_of(owner))
    eventually(lambda: taken_over(database_url), timeout=PATIENCE)
    before = written_by(database_url, 1)
    owner.thaw()
    owner.logs("lease", "lost")
    handle = client.handle("w")
    if moment == "between steps":
        assert handle.result(timeout=PATIENCE) == 20
        assert stored_values(database_url, "w", "ticks") == [(number, number) for number in range(20)]
        assert len(lines_of(owner)) == frozen_at, "no step body began after the thaw"
    else:
        assert handle.result(timeout=PATIENCE) == ["first", "second"]
        assert lines_of(owner) in (["first begins"], ["first begins", "first ends"]), (
            "the body may end, no other begins"
        )
        assert lines_of(successor)[-2:] == ["second begins", "second ends"]
    assert written_by(database_url, 1) == before
    assert rows(database_url, "SELECT ended_because FROM dbosflow.worker WHERE state = 'dead'") == [("expired",)]
    assert disorder(database_url) == []


def test_a_batch_that_a_frozen_worker_had_in_hand_never_arrives(
    database_url: str, start_program: StartProgram, client: Engine
) -> None:
    """It thaws with batches on their way, and nobody has gone on in its place yet: only the fence keeps them out."""
    settings = {"lease": LEASE}
    owner = start_program("worker", module="surviving", settings=settings)
    start_program("worker", module="queueing", settings=settings)  # sees the death, and cannot run these workflows
    ids = [f"w{number}" for number in range(20)]
    for workflow_id in ids:
        assert owner.ask(start="pouring", id=workflow_id, args=[1000]) == {"started": workflow_id}
    owner.freeze()
    eventually(
        lambda: rows(database_url, "SELECT DISTINCT status, epoch FROM dbosflow.workflow") == [("queued", 2)],
        timeout=PATIENCE,
    )
    before = written_by(database_url, 1)
    owner.thaw()
    owner.logs("lease", "lost")
    start_program("worker", module="surviving", settings=settings)
    for workflow_id in ids:
        assert client.handle(workflow_id, surviving.pouring).result(timeout=PATIENCE) == 1000
        assert client.read_stream(workflow_id, "drops").read_all() == (list(range(1000)), True)
    assert written_by(database_url, 1) == before
    assert disorder(database_url) == []


def test_a_worker_that_was_taken_over_works_again_under_a_new_lease(
    start_program: StartProgram, client: Engine
) -> None:
    """Its worker begins anew: what it is given later it runs, and it could take the workflow back."""
    settings = {"lease": LEASE}
    owner = start_program("worker", module="surviving", settings=settings)
    successor = start_program("worker", module="surviving", settings=settings)
    start_in(owner, "ticking", 300, 0.01)
    eventually(lambda: len(lines_of(owner)) >= 10)
    owner.freeze()
    eventually(lambda: lines_of(successor), timeout=PATIENCE)
    owner.thaw()
    owner.logs("lease", "lost")
    successor.kill()
    assert client.handle("w", surviving.ticking).result(timeout=PATIENCE) == 300
    assert lines_of(owner)[-1] == "tick 299"
    assert client.read_stream("w", "ticks").read_all() == (list(range(300)), True)


def test_a_lease_that_is_renewed_is_not_taken(database_url: str, start_program: StartProgram, client: Engine) -> None:
    """Peers watch for several leases, and leave a worker alone that only has nothing to write."""
    workers = [start_program("worker", module="surviving", settings={"lease": 1.0}) for _ in range(3)]
    start_in(workers[0], "lingering_twice", 2.5)
    assert client.handle("w").result(timeout=PATIENCE) == ["first", "second"]
    assert lines_of(workers[0]) == ["first begins", "first ends", "second begins", "second ends"]
    assert rows(database_url, "SELECT epoch FROM dbosflow.workflow") == [(1,)]
    assert rows(database_url, "SELECT DISTINCT state FROM dbosflow.worker") == [("live",)]


def test_python_code_that_blocks_does_not_cost_the_lease(
    database_url: str, start_program: StartProgram, client: Engine
) -> None:
    """P11: a busy loop three leases long, in the body and in a step. Nobody takes over, and the watchdog names both."""
    owner = start_program("worker", module="surviving", settings={"lease": 1.0})
    start_program("worker", module="surviving", settings={"lease": 1.0})
    start_in(owner, "holding_the_loop", 3.0)
    assert client.handle("w").result(timeout=PATIENCE) == "done"
    assert ledger.noted() == ["body", "between", "spinning"]
    assert rows(database_url, "SELECT epoch FROM dbosflow.workflow") == [(1,)]
    assert rows(database_url, "SELECT DISTINCT state FROM dbosflow.worker") == [("live",)]
    line = owner.logs("'w'", "holding_the_loop", "the body", "held the event loop")
    assert "surviving.py" in line, "and the place in the code"
    assert "surviving.py" in owner.logs("'w'", "holding_the_loop", "step 'spinning#0'", "held the event loop")


def test_a_reader_does_not_mind_a_change_of_owners(start_program: StartProgram, client: Engine) -> None:
    """Frozen, thawed or killed: a reader sees each value once, and the end."""
    settings = {"lease": LEASE}
    workers = [start_program("worker", module="surviving", settings=settings) for _ in range(3)]
    start_in(workers[0], "ticking", 300, 0.01)
    reader = client.read_stream("w", "ticks", timeout=PATIENCE)
    received = [next(reader) for _ in range(10)]
    workers[0].freeze()
    received += [next(reader) for _ in range(100)]  # it takes a successor
    workers[0].thaw()
    successor = max(workers[1:], key=lambda worker: len(lines_of(worker)))
    successor.kill()
    values, closed = reader.read_all()
    assert closed
    assert received + values == list(range(300))
