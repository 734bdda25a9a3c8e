"""A server that takes what it is sent, and does not answer: stopped, or behind a pooler that is paused."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine, WorkflowHandle, recv, step, workflow
from dbosflow._runtime import repository
from dbosflow._store import connect as connecting
from dbosflow._store.connect import connect, connect_async, is_silent
from dbosflow._store.connection import Connection
from dbosflow.errors import DatabaseUnavailableError
from tests.chaos.nodes.pair import Node
from tests.support import TIMEOUT, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PATIENCE = 1.0
ASKED: dict[str, Callable[[Engine, WorkflowHandle[None]], object]] = {
    "status": lambda _, handle: handle.status(),
    "listing": lambda client, _: client.list_workflows(),
    "cancel": lambda _, handle: handle.cancel(),
}


@workflow
def hears_nothing() -> None:
    """Waits for a message."""
    recv("news")


class Gate:
    """Where a step waits for the test."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()


GATES: dict[str, Gate] = {}


@step
def passes(gate: str) -> None:
    """Waits until the test opens the gate."""
    GATES[gate].reached.set()
    assert GATES[gate].opened.wait(TIMEOUT)


@workflow
def goes_through(gate: str) -> None:
    """Has a step to write as soon as the test says so."""
    passes(gate)


@pytest.fixture(scope="module")
def server() -> Iterator[Node]:
    """A server of the module's own."""
    node = Node(Path(tempfile.mkdtemp(prefix="dbosflow-chaos-")))
    with node:
        yield node
    node.discard()


@pytest.fixture
def client(server: Node) -> Iterator[Engine]:
    """A client that says so soon, and has its connection already."""
    with Engine(server.url("client"), executes=False, connect_timeout=_PATIENCE) as client:
        client.list_workflows()
        yield client


@pytest.mark.parametrize("asked", ASKED)
def test_a_request_to_a_silent_server_fails_in_time(server: Node, client: Engine, asked: str) -> None:
    """Also one whose statement is on its way."""
    handle = client.start(hears_nothing.options(queue="q"))
    server.freeze()
    refused: list[BaseException] = []

    def ask() -> None:
        with pytest.raises(DatabaseUnavailableError) as error:
            ASKED[asked](client, handle)
        refused.append(error.value)

    try:
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(TIMEOUT)
        assert refused
    finally:
        server.thaw()
    assert handle.status() in {"queued", "cancelled"}  # what was on its way may be carried out all the same


def test_a_request_that_only_waits_for_others_has_its_time(
    server: Node, client: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here for a lock, while the server answers everybody else."""
    looked = threading.Event()

    async def looking(*given: Any, **named: Any) -> bool:
        silent = await is_silent(*given, **named)
        looked.set()
        return silent

    monkeypatch.setattr(repository, "is_silent", looking)
    handle = client.start(hears_nothing.options(queue="q"))
    answers: list[object] = []
    with psycopg.connect(server.url("other")) as other:
        other.execute("SELECT FROM dbosflow.workflow WHERE id = %s FOR UPDATE", (handle.workflow_id,))
        asking = threading.Thread(target=lambda: answers.append(handle.cancel().outcome), daemon=True)
        asking.start()
        assert looked.wait(TIMEOUT)
    asking.join(TIMEOUT)
    assert answers == ["cancelled"]


@pytest.mark.parametrize("is_busy", [False, True])
def test_an_engine_closes_though_the_server_is_silent(server: Node, *, is_busy: bool) -> None:
    """Also in a batch, and while a step goes on: what could be handed over meanwhile is not waited for."""
    GATES.update({name: Gate() for name in ("first", "second")})
    engine = Engine(server.url("closing"), lease=2.0, grace=0.5).open()
    if is_busy:
        engine.start(hears_nothing)
        for name, gate in GATES.items():
            engine.start(goes_through, name)
            assert gate.reached.wait(TIMEOUT)
    core = engine._core
    server.freeze()
    try:
        if is_busy:
            GATES["first"].opened.set()
            eventually(core.executor.lease.lock.locked)
        closing = threading.Thread(target=engine.close, daemon=True)
        closing.start()
        closing.join(TIMEOUT)
        assert not closing.is_alive()
    finally:
        server.thaw()
        for gate in GATES.values():
            gate.opened.set()


async def test_a_silent_server_is_asked_once_to_cancel_statements(
    server: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Services that end one after the other do not each wait for that; their connections are closed."""
    asked: list[Connection] = []
    cancel_safe = Connection.cancel_safe

    async def asking(self: Connection, *, timeout: float = 0) -> None:  # noqa: ASYNC109 (as its base has it)
        asked.append(self)
        await cancel_safe(self, timeout=timeout)

    monkeypatch.setattr(Connection, "cancel_safe", asking)
    monkeypatch.setattr("dbosflow._store.connection._LONGEST_CANCEL", 1.0)
    monkeypatch.setattr("dbosflow._store.connection._silent_until", {})
    connections = [await connect_async(server.url("cancelling")) for _ in range(3)]
    server.freeze()
    try:
        for connection in connections:
            statement = asyncio.create_task(connection.execute("SELECT"))
            await asyncio.sleep(0)
            statement.cancel()
            with pytest.raises(asyncio.CancelledError):
                await statement
            assert connection.closed
        assert set(asked) == {connections[0]}
    finally:
        server.thaw()


def test_a_threads_statement_ends_when_the_server_is_silent(server: Node) -> None:
    """As that of the thread that renews leases, which has other servers to ask."""
    with connect(server.url("thread"), silence=0.2) as connection:
        server.freeze()
        try:
            with pytest.raises(psycopg.errors.ConnectionTimeout):
                connection.execute("SELECT")
        finally:
            server.thaw()
        assert connection.closed


def test_a_session_whose_server_falls_silent_at_its_beginning_is_left(
    server: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of a pooler that has no server's session to spare."""

    def setting_up(*_: object) -> Iterator[tuple[str, dict[str, list[str]]]]:
        server.freeze()
        yield "SELECT", {}

    monkeypatch.setattr(connecting, "setting_up", setting_up)
    try:
        with pytest.raises(DatabaseUnavailableError, match="the server is silent"):
            connect(server.url("beginning"), timeout=0.1)
    finally:
        server.thaw()
