"""P1: the workflow id is the idempotency key: the same id twice gives the same execution, anywhere, at any time."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, WorkflowStatus, workflow
from dbosflow.errors import ConfigurationError, WorkflowConflictError, WorkflowNotFoundError
from tests.behaviour.ledger import noted as ledger
from tests.behaviour.programs.starting import noted, starting_once
from tests.behaviour.tables import rows

if TYPE_CHECKING:
    from tests.behaviour.conftest import StartProgram

PATIENCE = 60.0


@workflow
async def something_else(what: str) -> str:
    return await noted("else")


def test_two_starts_of_one_id_are_one_execution(engine: Engine) -> None:
    """While it runs and after it has ended: the second start gives a handle to the first execution."""
    first = engine.start(starting_once.options(workflow_id="order-1"), "a")
    second = engine.start(starting_once.options(workflow_id="order-1"), "a")
    assert first.workflow_id == second.workflow_id == "order-1"
    assert first.result(timeout=PATIENCE) == second.result(timeout=PATIENCE) == "a"
    assert engine.run(starting_once.options(workflow_id="order-1"), "a") == "a"
    assert ledger() == ["a"]


def test_a_hundred_starts_at_once_are_one_execution(engine: Engine) -> None:
    """The starts of one batch are decided by the first of them."""

    async def start(workflow_id: str) -> list[str]:
        spec = starting_once.options(workflow_id=workflow_id)
        handles = await asyncio.gather(*(engine.start_async(spec, workflow_id) for _ in range(100)))
        return list(await asyncio.gather(*(handle.result_async(PATIENCE) for handle in handles)))

    ids = [f"order-{number}" for number in range(20)]  # some starts find the execution just as it ends
    for workflow_id in ids:
        assert asyncio.run(start(workflow_id)) == [workflow_id] * 100
    assert ledger() == ids


def test_two_processes_that_start_the_same_ids_start_each_once(
    database_url: str, start_program: StartProgram, client: Engine
) -> None:
    """In opposite orders, at the same time: no deadlock, no error, one execution for each id."""
    ids = [f"order-{number}" for number in range(40)]
    workers = [start_program("worker", module="starting"), start_program("worker", module="starting")]
    for worker, order in zip(workers, (ids, ids[::-1]), strict=True):
        worker.send(start_all="starting_once", ids=order)
    assert [worker.receive() for worker in workers] == [{"started": 40}, {"started": 40}]
    assert [client.handle(one, starting_once).result(timeout=PATIENCE) for one in ids] == ids
    assert Counter(ledger()) == dict.fromkeys(ids, 1)
    assert rows(database_url, "SELECT count(*) FROM dbosflow.workflow") == [(40,)]
    owners = rows(database_url, "SELECT DISTINCT epoch FROM dbosflow.workflow")
    assert owners == [(1,)], "nobody had to take anything over"


def test_an_enqueue_and_a_start_of_one_id_are_one_execution(engine: Engine, client: Engine) -> None:
    """Where it was first asked for is where it runs."""
    spec = starting_once.options(workflow_id="order-1")
    client.start(spec, "a")
    client.start(spec, "a")
    handle = engine.start(spec, "a")
    assert handle.status() is WorkflowStatus.QUEUED, "it waits for a worker of its queue"
    assert engine.start(starting_once.options(workflow_id="order-2"), "b").result(timeout=PATIENCE) == "b"
    assert client.start(starting_once.options(workflow_id="order-2"), "b").result(timeout=PATIENCE) == "b"
    assert ledger() == ["b"]


@pytest.mark.parametrize("where", ["engine", "client"])
def test_a_start_of_a_known_id_with_other_arguments_warns_and_changes_nothing(
    where: str, request: pytest.FixtureRequest, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """The first execution counts. A caller that meant another one learns it from the log."""
    starter: Engine = request.getfixturevalue(where)
    engine.run(starting_once.options(workflow_id="order-1"), "a")
    with caplog.at_level(logging.WARNING, "dbosflow"):
        handle = starter.start(starting_once.options(workflow_id="order-1"), "b")
        assert handle.result(timeout=PATIENCE) == "a"
        assert ["other arguments" in message for message in _said_of("order-1", caplog)] == [True]
        caplog.clear()
        starter.start(starting_once.options(workflow_id="order-1"), "a")
        assert _said_of("order-1", caplog) == []
    assert ledger() == ["a"]


def _said_of(workflow_id: str, caplog: pytest.LogCaptureFixture) -> list[str]:
    return [message for message in caplog.messages if workflow_id in message]


@pytest.mark.parametrize("where", ["engine", "client"])
def test_an_id_of_another_workflow_is_a_conflict(where: str, request: pytest.FixtureRequest, engine: Engine) -> None:
    """Nobody gets a handle to something that he did not ask for."""
    starter: Engine = request.getfixturevalue(where)
    engine.run(starting_once.options(workflow_id="order-1"), "a")
    with pytest.raises(WorkflowConflictError, match=r"starting_once.*something_else") as caught:
        starter.start(something_else.options(workflow_id="order-1"), "a")
    assert caught.value.workflow_id == "order-1"
    assert ledger() == ["a"]


def test_a_start_is_durable_when_it_returns(database_url: str, start_program: StartProgram, client: Engine) -> None:
    """A process that is killed right after its start returned has started the workflow: another runs it."""
    owner = start_program("worker", module="starting")
    other = start_program("worker", module="starting")
    ids = [f"order-{number}" for number in range(20)]
    random.shuffle(ids)
    for number, workflow_id in enumerate(ids):
        owner.send(start="starting_once", id=workflow_id, args=[workflow_id])
        if number == 10:
            break
    started = [owner.receive()["started"] for _ in range(11)]
    owner.kill()
    assert [client.handle(one, starting_once).result(timeout=PATIENCE) for one in started] == started
    assert set(ledger()) == set(started)
    assert other.running


def test_a_start_without_an_id_is_an_execution_of_its_own(engine: Engine) -> None:
    """Only a start with an id of its own asks for the execution that there may be already."""
    handles = [engine.start(starting_once, "a") for _ in range(50)]
    assert [handle.result(timeout=PATIENCE) for handle in handles] == ["a"] * 50
    assert len({handle.workflow_id for handle in handles}) == len(ledger()) == 50


@pytest.mark.parametrize("workflow_id", ["", "x" * 513, "nul\0", "lone \ud800"])
def test_a_text_that_cannot_be_a_workflow_id_is_refused(engine: Engine, workflow_id: str) -> None:
    """At the call, with the reason; not by the database, later."""
    with pytest.raises(ConfigurationError, match="workflow id"):
        starting_once.options(workflow_id=workflow_id)
    with pytest.raises(ConfigurationError, match="workflow id"):
        engine.handle(workflow_id)


@pytest.mark.parametrize("workflow_id", ["x" * 512, "ünï/cödé #1 % %s ' \" \\ ;--", "\x1f", "🌍"])
def test_any_text_that_fits_can_be_a_workflow_id(engine: Engine, workflow_id: str) -> None:
    """An id is a key of the caller's own; it needs no escaping."""
    assert engine.run(starting_once.options(workflow_id=workflow_id), "a") == "a"
    handle: Any = engine.handle(workflow_id)
    assert handle.result(timeout=PATIENCE) == "a"
    assert handle.info().id == workflow_id


def test_a_workflow_of_an_unknown_id_is_not_found(engine: Engine) -> None:
    """A handle does no I/O; each of its questions does."""
    handle = engine.handle("nobody")
    for ask in (handle.status, handle.info, handle.result):
        with pytest.raises(WorkflowNotFoundError, match="nobody") as caught:
            ask()
        assert caught.value.workflow_id == "nobody"
