"""A server that takes what it is sent, and does not answer: stopped, or behind a pooler that is paused."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine, WorkflowHandle, recv, workflow
from dbosflow._runtime import repository
from dbosflow._store.connect import is_silent
from dbosflow.errors import DatabaseUnavailableError
from tests.chaos.nodes.pair import Node
from tests.support import TIMEOUT

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
