"""A process without a key: its errors are typed, it breaks no listing, and it neither fails nor blocks a workflow."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import (
    Engine,
    compensate,
    create_token_async,
    read_stream_async,
    recv_async,
    set_event_async,
    step,
    workflow,
    write_stream_async,
)
from dbosflow._store import workflow as workflow_store
from dbosflow.codecs import Encrypt
from dbosflow.errors import MissingKeyError, WorkflowCancelledError, WorkflowTimeoutError
from tests.behaviour.tables import rows
from tests.codecs.keys import CHAIN, NEW, OLD
from tests.support import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

PATIENCE = 60.0
QUEUE, OTHERS = "codecs", "codecs/others"
BOTH = [Encrypt({"new": NEW, "old": OLD})]
OTHER = [Encrypt({"old": NEW})]


@step
async def noted(text: str) -> str:
    return text


@workflow(name="codecs.keyed")
async def keyed(text: str) -> list[str]:
    await write_stream_async("s", text)
    return [await noted(text), str(await recv_async())]


@workflow(name="codecs.twice")
async def twice(text: str) -> None:
    await write_stream_async("s", text)
    await noted(text)
    await write_stream_async("s", text)


@workflow(name="codecs.small")
async def small(text: str) -> str:
    return text


@workflow(name="codecs.parent")
async def parent(text: str) -> Any:
    await noted(text)
    child = await keyed.options(workflow_id="p/child", queue=OTHERS).start_async(text)
    return await child.result_async()


@step
async def undo(text: str) -> str:
    return f"undo {text}"


@workflow(name="codecs.undone", compensates=True)
async def undone(text: str) -> Any:
    compensate(undo, text)
    await noted(text)
    return await recv_async()


@step
async def fails(text: str) -> None:
    raise LookupError(text)


@workflow(name="codecs.unlucky")
async def failing(text: str) -> None:
    await fails(text)


@workflow(name="codecs.evented")
async def evented(text: str) -> Any:
    token = await create_token_async()
    await set_event_async("state", token.id)
    return [text, await token.wait_async()]


@workflow(name="codecs.enduring")
async def enduring(how: str) -> Any:
    """Waits for something that another process writes, and would handle any error."""
    try:
        if how == "message":
            return await recv_async()
        if how == "stream":
            return [item.value async for item in read_stream_async("other", "s") if not item.closed]
        return await (await small.options(queue=OTHERS).start_async("small")).result_async()
    except Exception as error:  # noqa: BLE001 (that is what the test is about)
        return f"handled {type(error).__name__}"


@asynccontextmanager
async def working(url: str, codecs: list[Any], queue: str = QUEUE) -> AsyncIterator[Engine]:
    """A worker with these codecs."""
    async with Engine(url, codecs=codecs, safety_poll=0.2) as engine:
        serving = asyncio.create_task(engine.run_worker_async(queue))
        yield engine
        serving.cancel()


async def is_put_off(url: str, workflow_id: str) -> None:
    """Waits until a worker has left the workflow to others."""
    query = (
        "SELECT 1 FROM dbosflow.workflow WHERE id = %s AND status = 'waiting' AND wake_at > now() - interval '1 hour'"
    )
    await eventually_async(lambda: rows(url, query, workflow_id), timeout=PATIENCE)


@pytest.mark.parametrize("codecs", [[], OTHER], ids=["no key", "another key"])
async def test_a_workflow_that_a_worker_cannot_read_goes_on_where_it_can_be(
    database_url: str, codecs: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """It has not begun, and comes back after a second, not at once. The log says why."""
    async with Engine(database_url, codecs=CHAIN, executes=False) as client:
        handle = await client.start_async(keyed.options(workflow_id="w", queue=QUEUE), "text")
        async with working(database_url, codecs):
            await is_put_off(database_url, "w")
        assert rows(database_url, "SELECT key FROM dbosflow.step") == []
        assert rows(database_url, "SELECT wake_at - started_at >= interval '1 second' FROM dbosflow.workflow") == [
            (True,)
        ]
        assert any("left to a worker that can read it" in record.getMessage() for record in caplog.records)
        async with working(database_url, CHAIN):
            await client.send_async("w", "go")
            assert await handle.result_async(timeout=PATIENCE) == ["text", "go"]
        assert (await handle.info_async()).error is None


async def test_records_that_cannot_be_read_are_never_taken_for_contradictions(database_url: str) -> None:
    """A worker that lacks the key of a record gives the workflow back, as it was."""
    async with working(database_url, BOTH) as engine:
        handle = await engine.start_async(keyed.options(workflow_id="w", queue=QUEUE), "text")
        await eventually_async(lambda: rows(database_url, "SELECT 1 FROM dbosflow.step WHERE kind = 'step'"))
    assert rows(database_url, "SELECT status FROM dbosflow.workflow") == [("queued",)]
    with psycopg.connect(database_url, autocommit=True) as connection:
        plain = """UPDATE dbosflow.workflow SET input = '{"text": "text"}'"""  # so that only the record is encrypted
        connection.execute(plain)
    async with working(database_url, CHAIN):
        await is_put_off(database_url, "w")
    async with working(database_url, BOTH) as engine:
        await engine.send_async("w", "go")
        assert await engine.handle(handle.workflow_id).result_async(timeout=PATIENCE) == ["text", "go"]


@pytest.mark.parametrize("how", ["message", "stream", "result"])
async def test_what_a_running_workflow_cannot_read_is_no_error_of_its_body(database_url: str, how: str) -> None:
    """It stops there, with nothing on record, and goes on where the key is; the message is not lost."""
    async with working(database_url, BOTH, OTHERS) as newer:
        await newer.start_async(keyed.options(workflow_id="other", queue=OTHERS), "text")
        await newer.send_async("other", "go")
        await newer.handle("other").result_async(timeout=PATIENCE)
        async with working(database_url, CHAIN, QUEUE) as older:
            await older.start_async(enduring.options(workflow_id="w", queue=QUEUE), how)
            if how == "message":
                await newer.send_async("w", "hello")
            await is_put_off(database_url, "w")
    query = "SELECT kind FROM dbosflow.step WHERE workflow_id = 'w' AND kind NOT IN ('child', 'until')"
    assert rows(database_url, query) == []
    async with working(database_url, BOTH, QUEUE) as newer:
        found = await newer.handle("w").result_async(timeout=PATIENCE)
    assert found == {"message": "hello", "stream": ["text"], "result": "small"}[how]


@pytest.mark.parametrize("codecs", [[], OTHER], ids=["no key", "another key"])
@pytest.mark.parametrize("unreadable", ["arguments", "records"])
async def test_what_is_asked_to_end_needs_no_key(database_url: str, codecs: list[Any], unreadable: str) -> None:
    """It ends as cancelled, with its children, or as too late, by any worker."""
    async with working(database_url, CHAIN, OTHERS) as engine:
        cancelled = await engine.start_async(parent.options(workflow_id="p", queue=OTHERS), "text")
        late = await engine.start_async(keyed.options(workflow_id="d", queue=OTHERS, timeout=PATIENCE), "text")
        noted_by = "SELECT count(*) = 3 FROM dbosflow.step WHERE kind = 'step'"
        await eventually_async(lambda: rows(database_url, noted_by) == [(True,)], timeout=PATIENCE)
    with psycopg.connect(database_url, autocommit=True) as connection:
        if unreadable == "records":
            connection.execute("""UPDATE dbosflow.workflow SET input = '{"text": "text"}'""")
    async with working(database_url, codecs, OTHERS) as blind:
        for workflow_id in ("p", "p/child", "d"):
            await is_put_off(database_url, workflow_id)
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("UPDATE dbosflow.workflow SET deadline_at = now() WHERE id = 'd'")
        await blind.handle("p").cancel_async(reason="lost")
        with pytest.raises(WorkflowCancelledError, match="lost"):
            await blind.handle(cancelled.workflow_id).result_async(timeout=PATIENCE)
        with pytest.raises(WorkflowCancelledError):
            await blind.handle("p/child").result_async(timeout=PATIENCE)
        with pytest.raises(WorkflowTimeoutError):
            await blind.handle(late.workflow_id).result_async(timeout=PATIENCE)


@pytest.mark.parametrize("how", ["cancel", "deadline"])
async def test_a_request_that_comes_while_it_is_put_off_is_carried_out_at_once(
    database_url: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Behind the worker's last look at it, and before it waits, which would be for minutes."""
    async with Engine(database_url, codecs=CHAIN, executes=False) as client:
        handle = await client.start_async(small.options(workflow_id="w", queue=QUEUE, timeout=3600.0), "text")
        rows(database_url, "UPDATE dbosflow.workflow SET created_at = now() - interval '1 hour' RETURNING id")
        put_off, asked = workflow_store.put_off, list[str]()

        async def requested(*args: Any, **kwargs: Any) -> bool:
            if not asked:
                asked.append(how)
                if how == "cancel":
                    await handle.cancel_async(reason="late")
                else:
                    expired = "UPDATE dbosflow.workflow SET deadline_at = now() RETURNING id"
                    await asyncio.to_thread(rows, database_url, expired)
                    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
                        await workflow_store.expire(connection, "dbosflow", limit=10)
            return await put_off(*args, **kwargs)

        monkeypatch.setattr(workflow_store, "put_off", requested)
        async with working(database_url, []):
            with pytest.raises(WorkflowCancelledError if how == "cancel" else WorkflowTimeoutError):
                await handle.result_async(timeout=PATIENCE)
        assert asked == [how]


async def test_what_has_to_compensate_waits_for_the_key_even_if_it_is_cancelled(database_url: str) -> None:
    """Its compensations need what is on record; they are carried out where that can be read."""
    async with working(database_url, BOTH, OTHERS) as newer:
        handle = await newer.start_async(undone.options(workflow_id="w", queue=OTHERS), "text")
        await eventually_async(lambda: rows(database_url, "SELECT 1 FROM dbosflow.step WHERE kind = 'step'"))
    async with working(database_url, CHAIN, OTHERS) as older:
        await is_put_off(database_url, "w")
        await older.handle("w").cancel_async()
        await eventually_async(lambda: rows(database_url, "SELECT 1 FROM dbosflow.workflow WHERE epoch > 3"))
        await is_put_off(database_url, "w")
    async with working(database_url, BOTH, OTHERS) as newer:
        with pytest.raises(WorkflowCancelledError):
            await newer.handle(handle.workflow_id).result_async(timeout=PATIENCE)
        assert "undo text" in [info.output for info in await newer.list_steps_async("w")]


async def test_readers_get_what_comes_before_what_they_cannot_read(database_url: str) -> None:
    """The error is in its place, also where all was there when they came, and at each further try."""
    async with Engine(database_url, codecs=CHAIN) as engine:
        await engine.run_async(twice.options(workflow_id="w"), "text")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("""UPDATE dbosflow.stream_block SET values = '["plain"]' WHERE "offset" = 0""")
    async with Engine(database_url, codecs=[], executes=False) as blind:
        reader = blind.read_stream_async("w", "s")
        assert (await anext(reader)).value == "plain"
        for _ in range(2):
            with pytest.raises(MissingKeyError, match="'old'"):
                await anext(reader)


async def test_callers_without_the_key_get_a_typed_error_and_listings_are_whole(database_url: str) -> None:
    """Whatever they ask for; and with the key all is there, too."""
    async with working(database_url, CHAIN, QUEUE) as engine:
        await engine.start_async(keyed.options(workflow_id="w", queue=QUEUE), "text")
        await engine.send_async("w", "go")
        await engine.handle("w").result_async(timeout=PATIENCE)
        await engine.start_async(failing.options(workflow_id="f", queue=QUEUE), "text")
        with pytest.raises(LookupError):
            await engine.handle("f").result_async(timeout=PATIENCE)
        await engine.start_async(evented.options(workflow_id="e", queue=QUEUE), "text")
        token = await engine.get_event_async("e", "state", timeout=PATIENCE)
    async with Engine(database_url, codecs=[], executes=False) as blind:
        asked: list[Callable[[], Awaitable[Any]]] = [
            lambda: blind.handle("w").result_async(timeout=PATIENCE),
            lambda: blind.handle("f").result_async(timeout=PATIENCE),
            lambda: blind.read_stream_async("w", "s").__anext__(),
            lambda: blind.get_event_async("e", "state"),
            lambda: blind.resolve_async(token, "answer"),
            lambda: blind.workflows.retry_async("f"),
        ]
        for ask in asked:
            with pytest.raises(MissingKeyError, match="'old'") as caught:
                await ask()
            assert caught.value.key_id == "old"
        listed = {info.id: info for info in await blind.list_workflows_async()}
        assert str(listed["w"].input).startswith("<unreadable: a payload is encrypted with key 'old'")
        assert listed["f"].error is not None
        assert "'old'" in listed["f"].error["message"]
        assert [info.kind for info in await blind.list_steps_async("w")] == ["step", "recv"]
        assert "'old'" in str((await blind.events_async("e"))["state"].value)
        (ended,) = (await blind.workflows.explain_async("f")).causes
        assert "'old'" in ended.text
    async with Engine(database_url, codecs=CHAIN, executes=False) as seeing:
        assert await seeing.handle("w").result_async() == ["text", "go"]
        received = {"topic": "", "offset": 0, "value": "go"}
        assert [info.output for info in await seeing.list_steps_async("w")] == ["text", received]
