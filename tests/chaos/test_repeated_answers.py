"""What an earlier try has written is acknowledged when the synchronous standby has it, like what is written now.

A session that is ended while it waits for the standby leaves a commit that every session sees, and the standby does not
have. The next try finds it there, and has nothing to write; a failover would still lose it.
"""

from __future__ import annotations

import tempfile
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dbosflow import Engine, create_token_async, read_input_async, set_event_async, workflow
from tests.chaos.nodes.pair import Node
from tests.chaos.nodes.postgres import PATIENCE
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = 'client'"


@workflow(inputs=["chat"])
async def asked() -> int:
    """Waits for everything that comes from outside."""
    token = await create_token_async()
    await set_event_async("token", token.id)
    async for _ in read_input_async("chat"):
        pass
    return await token.wait_async(type=int)


ACTS: dict[str, Callable[[Engine, str, str], object]] = {
    "enqueue": lambda client, *_: client.start(asked.options(queue="q")),
    "enqueue many": lambda client, *_: client.start_many(asked.options(queue="q"), [(), ()]),
    "enqueue with a key": lambda client, *_: client.start(
        asked.options(queue="q", dedup_key="k", on_duplicate="existing")
    ),
    "send": lambda client, one, _: client.send(one, "a message", topic="t"),
    "write": lambda client, one, _: client.write_stream(one, "chat", 1),
    "close": lambda client, one, _: client.close_stream(one, "chat"),
    "resolve": lambda client, _, token: client.resolve(token, 1),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Node]:
    """A server of the module's own."""
    node = Node(Path(tempfile.mkdtemp(prefix="dbosflow-chaos-")))
    with node:
        yield node
    node.discard()


@pytest.mark.parametrize("act", ACTS)
def test_a_repeated_act_waits_for_the_standby_like_the_first_one(server: Node, act: str) -> None:
    """The session of the first try is ended while it waits. The act is over when the standby has it, and no sooner."""
    with Engine(server.url("worker")) as worker, Engine(server.url("client"), executes=False) as client:
        handle = worker.start(asked.options(workflow_id=act))
        token = worker.get_event(act, "token", timeout=PATIENCE)
        server.require_standby("nobody")
        try:
            done = _begun(lambda: ACTS[act](client, act, token))
            eventually(lambda: done.done() or server.ask(_WAITING), timeout=PATIENCE)
            assert not done.done()
            ((first,),) = server.ask(_WAITING)
            server.ask("SELECT pg_terminate_backend(%s)", first)
            eventually(lambda: done.done() or server.ask(f"{_WAITING} AND pid <> %s", first), timeout=PATIENCE)
            assert not done.done()
        finally:
            server.require_standby("")
        done.result(PATIENCE)
        handle.cancel()


def _begun(function: Callable[[], object]) -> Future[object]:
    """Calls it on a thread of its own."""
    done: Future[object] = Future()

    def call() -> None:
        try:
            done.set_result(function())
        except BaseException as error:  # noqa: BLE001 (of the test's)
            done.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return done
