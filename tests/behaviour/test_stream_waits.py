"""Readers that wait: for news, for a workflow that does not exist yet, or on an engine that closes meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, workflow, write_stream_async
from dbosflow.errors import (
    EngineClosedError,
    StreamTimeoutError,
    WorkflowNotFoundError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.behaviour.gate import Gate

PATIENCE = 60.0
COUNT = 1000


@workflow
async def writing_some(count: int) -> None:
    for number in range(count):
        await write_stream_async("k", number)


def test_a_timeout_in_a_read_leaves_the_reader_usable(engine: Engine, gate: Gate, gated: Any) -> None:
    """It counts seconds without news, not since the start, and says which stream; reading goes on after it."""
    workflow_id = engine.start(gated, 3).workflow_id
    reader = engine.read_stream(workflow_id, "k", timeout=0.2)
    for number in range(3):
        began = time.monotonic()
        with pytest.raises(StreamTimeoutError, match=f"'k' of workflow '{workflow_id}'") as caught:
            next(reader)
        assert time.monotonic() - began >= 0.2
        assert isinstance(caught.value, TimeoutError)
        gate.open()
        assert next(reader) == number
    assert reader.read_all() == ([], True)

    async def main() -> None:
        other = await engine.start_async(gated, 2)
        channel = engine.read_stream_async(other.workflow_id, "k", timeout=0.2)
        for number in range(2):
            with pytest.raises(StreamTimeoutError):
                await anext(channel)
            gate.open()
            assert (await anext(channel)).value == number
        assert (await anext(channel)).closed

    asyncio.run(main())


def test_a_reader_of_an_unknown_workflow_is_told_that_there_is_none(engine: Engine) -> None:
    """At once, or after ``wait_for`` seconds; asking again looks again."""
    reader = engine.read_stream("later", "k")
    for _ in range(2):
        with pytest.raises(WorkflowNotFoundError, match="later"):
            next(reader)
    began = time.monotonic()
    with pytest.raises(WorkflowNotFoundError, match=r"0\.3 s"):
        engine.read_stream("later", "k", wait_for=0.3).read_all()
    assert time.monotonic() - began >= 0.3
    engine.run(writing_some.options(workflow_id="later"), 2)
    assert reader.read_all() == ([0, 1], True)


@pytest.mark.parametrize("starter", ["engine", "client"])
def test_a_reader_may_be_there_before_its_workflow(
    request: pytest.FixtureRequest, engine: Engine, client: Engine, starter: str
) -> None:
    """``wait_for``: it is notified of the start, in this process and in others, also of one that is only enqueued."""
    found: dict[str, Any] = {}

    def read(name: str, one: Engine) -> None:
        found[name] = one.read_stream("w", "k", wait_for=PATIENCE).read_all()

    threads = [threading.Thread(target=read, args=pair) for pair in (("engine", engine), ("client", client))]
    for thread in threads:
        thread.start()
    starting: Engine = request.getfixturevalue(starter)
    working = threading.Thread(target=engine.run_worker)
    if starter == "client":
        working.start()
    starting.start(writing_some.options(workflow_id="w"), 3)
    for thread in threads:
        thread.join(PATIENCE)
    assert found == {"engine": ([0, 1, 2], True), "client": ([0, 1, 2], True)}
    engine.close()
    if starter == "client":
        working.join(PATIENCE)


WAITS: dict[str, Callable[[Engine, str], Any]] = {
    "reader": lambda engine, workflow_id: next(engine.read_stream(workflow_id, "k")),
    "result": lambda engine, workflow_id: engine.handle(workflow_id).result(),
}


@pytest.mark.parametrize("executes", [True, False])
@pytest.mark.parametrize("wait", WAITS)
def test_closing_the_engine_ends_the_waits_on_it(database_url: str, gated: Any, *, wait: str, executes: bool) -> None:
    """No wait hangs on an engine that is closed: it raises."""
    raised: list[BaseException] = []

    def block(engine: Engine) -> None:
        try:
            WAITS[wait](engine, "w")
        except BaseException as error:  # noqa: BLE001 (whatever it is)
            raised.append(error)

    with Engine(database_url, grace=0) as owner, Engine(database_url, executes=executes, grace=0) as engine:
        owner.start(gated.options(workflow_id="w"), 1)
        thread = threading.Thread(target=block, args=(engine,), daemon=True)
        thread.start()
        time.sleep(0.1)
        engine.close()
        thread.join(60)
        assert not thread.is_alive()
    assert [type(error) for error in raised] == [EngineClosedError]


async def test_an_awaitable_wait_ends_with_the_engine(database_url: str, gated: Any) -> None:
    """The same on the caller's own loop, where nothing else would end it."""
    async with Engine(database_url, grace=0) as owner:
        await owner.start_async(gated.options(workflow_id="w"), 1)
        engine = await Engine(database_url, executes=False).open_async()
        waits = [
            asyncio.ensure_future(anext(engine.read_stream_async("w", "k"))),
            asyncio.ensure_future(engine.handle("w").result_async()),
            asyncio.ensure_future(owner.handle("w").result_async()),
        ]
        await asyncio.sleep(0.1)
        await engine.close_async()
    ended = await asyncio.wait_for(asyncio.gather(*waits, return_exceptions=True), 60)
    assert [type(error) for error in ended] == [EngineClosedError] * 3
