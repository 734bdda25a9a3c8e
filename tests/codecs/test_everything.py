"""One program that uses every way on which a value reaches the database: none is readable there, and all come back."""

from __future__ import annotations

from typing import Any

import httpx
import psycopg
import pytest

from dbosflow import (
    Engine,
    Message,
    Schedule,
    Stream,
    compensate,
    continue_as_new,
    create_token_async,
    current,
    durable,
    for_each_async,
    map_workflow_async,
    recv_async,
    requests,
    send_async,
    set_event_async,
    step,
    transaction,
    workflow,
    write_stream_async,
)
from dbosflow.errors import RejectedError, WorkflowCancelledError
from dbosflow.http import DurableStreams, create_app
from tests.behaviour.tables import rows
from tests.codecs.keys import CHAIN, MARKER, marked_rows, plain_payloads

PATIENCE = 60.0
LONG = f"{MARKER} " * 100
results = Stream[str, dict[str, str]]("results")


@step(max_attempts=2, interval=0.01)
async def shaky(text: str) -> str:
    await write_stream_async("live", f"{text} {current().attempt}")
    if str(current().attempt).endswith(".1"):
        msg = f"{MARKER}: {text}"
        raise ValueError(msg)
    return text


@workflow(name="codecs.child")
async def child(text: str) -> dict[str, str]:
    return {"child": text}


@transaction
async def moves(connection: psycopg.AsyncConnection, text: str) -> str:
    await connection.execute("SELECT 1")
    await write_stream_async("moved", text)
    return text


@step
async def handled(text: str) -> str:
    if "bad" in text:
        raise LookupError(text)
    return text


@step
async def undo(text: str) -> None:
    assert text


@workflow(name="codecs.everything", inputs=["work"], compensates=True)
async def everything(text: str, long: str, *, round_: int = 0) -> list[Any]:
    if round_ == 0:
        await write_stream_async("live", text)
        continue_as_new(text, long, round_=1)
    compensate(undo, text)
    await set_event_async("state", {"now": text})
    async with results.writer() as writer:
        await writer.write_async(long)
        await writer.close_async({"final": text})
    got: list[Any] = [await shaky(text), await shaky(long), await child(text), await moves(text)]
    got.append(await map_workflow_async(child, [text, long]))
    got.append(await recv_async("first"))
    await send_async(current().workflow_id, [text], "self")
    got += [await recv_async("self"), await recv_async("outbox"), durable.uuid4().version]
    tokens = [await create_token_async() for _ in range(2)]
    await set_event_async("tokens", [text, *(token.id for token in tokens)])
    got.append(await tokens[0].wait_async())
    try:
        await tokens[1].wait_async()
    except RejectedError as error:
        got.append(str(error))
    async for request in requests("questions"):
        await request.reply(f"{request.value} answered")
        break
    async for request in requests("questions"):
        await request.reject(f"{request.value} refused")
        break
    done = await for_each_async("work", handled, on_error="dead_letter", collect=True)
    return [*got, done.results]


@workflow(name="codecs.failing")
async def failing(text: str) -> None:
    await write_stream_async("before", text)
    raise LookupError(text)


@workflow(name="codecs.cancelled")
async def waiting(text: str) -> Any:
    await write_stream_async("before", text)
    return await recv_async(text[:4])


async def in_everything(engine: Engine, url: str) -> None:
    """Starts, feeds and ends the workflows."""
    spec = everything.options(workflow_id="w", attributes={"tenant": "named"})
    handle = await engine.start_async(spec, MARKER, LONG, message=Message("first", {"got": MARKER}))
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await engine.send_in_async(connection, "w", [MARKER], "outbox")
        await engine.start_in_async(connection, child.options(workflow_id="c"), MARKER)
    await engine.write_stream_async("w", "work", MARKER, idempotency_key="once")
    await engine.write_stream_async("w", "work", MARKER, idempotency_key="once")
    await engine.write_stream_async("w", "work", f"bad {LONG}")
    await engine.close_stream_async("w", "work")
    _, first, second = await engine.get_event_async("w", "tokens", timeout=PATIENCE)
    await engine.resolve_async(first, {"yes": MARKER})
    await engine.reject_async(second, f"no: {MARKER}")
    assert await engine.ask_async("w", MARKER, "questions", timeout=PATIENCE) == f"{MARKER} answered"
    with pytest.raises(RejectedError, match=f"{MARKER} refused"):
        await engine.ask_async("w", MARKER, "questions", timeout=PATIENCE)
    got = await handle.result_async(timeout=PATIENCE)
    assert got[:4] == [MARKER, LONG, {"child": MARKER}, MARKER]
    assert got[4] == [{"child": MARKER}, {"child": LONG}]
    assert got[5:9] == [{"got": MARKER}, [MARKER], [MARKER], 4]
    assert got[9:] == [{"yes": MARKER}, f"no: {MARKER}", [MARKER]]
    with pytest.raises(LookupError, match=MARKER):
        await engine.run_async(failing.options(workflow_id="f"), MARKER)
    stopped = await engine.start_async(waiting.options(workflow_id="x"), MARKER)
    await engine.read_stream_async("x", "before").__anext__()
    await stopped.cancel_async(reason="tired")
    with pytest.raises(WorkflowCancelledError, match="tired"):
        await stopped.result_async(timeout=PATIENCE)
    await engine.workflows.fork_async("w", from_step="~1/shaky#1", output=f"{MARKER} instead", workflow_id="v")
    assert (await engine.handle("c", child).result_async(timeout=PATIENCE)) == {"child": MARKER}


async def read(engine: Engine, workflow_id: str, key: str) -> list[Any]:
    """All values of a stream."""
    return [item.value async for item in engine.read_stream_async(workflow_id, key) if not item.closed]


async def over_http(engine: Engine) -> None:
    """Streams that belong to no workflow, with a fork in the middle of a message."""
    app = create_app(engine, durable_streams=DurableStreams(patience=5.0))
    base, text = "http://localhost/v1/stream/", {"Content-Type": "text/plain"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base) as client:
        made = await client.put("s", headers=text, content=f"{MARKER} one".encode())
        await client.post("s", headers=text, content=f" {LONG}".encode())
        assert made.status_code == 201
        assert (await client.get("s")).content.decode() == f"{MARKER} one {LONG}"


async def test_nothing_of_what_programs_store_is_readable_in_the_database(database_url: str) -> None:
    """In no column of any table, nor in the view; and each value comes back as it was."""
    async with Engine(database_url, codecs=CHAIN) as engine:
        await in_everything(engine, database_url)
        await over_http(engine)
        assert marked_rows(database_url) == []
        names = [row for row in plain_payloads(database_url) if row[2] not in {"rollback", "continued"}]
        assert names == []
        assert rows(database_url, "SELECT 1 FROM dbosflow.stream_block WHERE checksum IS NOT NULL") == []
        listed = {info.id: info for info in await engine.list_workflows_async()}
        assert listed["f"].error is not None
        assert listed["f"].error["message"] == MARKER
        assert listed["w"].input == {"text": MARKER, "long": LONG, "round_": 1}
        assert await read(engine, "w", "results") == [LONG]
        assert [one["value"] for one in await read(engine, "w", "handled.dead")] == [f"bad {LONG}"]


async def test_a_repeated_write_is_compared_by_what_it_says(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The same value is never stored as the same text, and yet there is a warning for another value only."""
    async with Engine(database_url, codecs=CHAIN) as engine:
        await engine.start_async(waiting.options(workflow_id="w"), "topic")
        for value in (MARKER, MARKER, "another"):
            caplog.clear()
            await engine.send_async("w", value, "elsewhere", idempotency_key="once")
            await engine.start_async(waiting.options(workflow_id="w"), "topic" if value == MARKER else value)
            found = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
            assert len(found) == (2 if value == "another" else 0), found


async def test_what_waits_is_no_exception(database_url: str) -> None:
    """In the outbox, which nobody applies here; for its time, under a key of its queue; and in a schedule."""
    async with Engine(database_url, codecs=CHAIN, executes=False) as client:
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            await client.send_in_async(connection, "nobody", MARKER, "outbox")
            await client.start_in_async(connection, child.options(workflow_id="later", queue="q"), LONG)
            await client.start_in_async(connection, child.options(queue="q", dedup_key="outbox"), LONG)
        only = child.options(
            workflow_id="deduplicated", queue="q", dedup_key="k", delay=PATIENCE, on_duplicate="replace"
        )
        for _ in range(2):
            await client.start_async(only, LONG)
        await client.schedules.apply_async(Schedule("hourly", child, every=3600, args={"text": LONG}, queue="q"))
        await client.schedules.trigger_async("hourly")
        assert marked_rows(database_url) == []
        assert plain_payloads(database_url) == []
        assert (await client.schedules.list_async())[0].args == {"text": LONG}
        assert (await client.handle("later").info_async()).input == {"text": LONG}


async def test_a_chain_of_none_stores_plain_json(database_url: str) -> None:
    """And what was stored with another chain is read beside it, if that only compressed."""
    from dbosflow.codecs import Compress

    async with Engine(database_url, codecs=[Compress(above=10)]) as engine:
        await engine.run_async(child.options(workflow_id="a"), LONG)
    async with Engine(database_url) as engine:
        assert await engine.handle("a", child).result_async() == {"child": LONG}
        await engine.run_async(child.options(workflow_id="b"), LONG)
    stored = [row for row in plain_payloads(database_url) if row[3].startswith('{"dbosflow/codec":["zlib"]')]
    assert len(stored) == 2
    assert len(marked_rows(database_url)) == 1


async def test_values_that_look_like_envelopes_come_back_with_and_without_codecs(database_url: str) -> None:
    """As arguments, results, values and messages."""
    forged = {"dbosflow/codec": ["aes-gcm-siv:old"], "data": "AAAA"}
    for codecs in ([], CHAIN):
        name = f"forged-{len(codecs)}"
        async with Engine(database_url, codecs=codecs) as engine:
            handle = await engine.start_async(echoing.options(workflow_id=name), forged)
            await engine.send_async(name, [forged])
            assert await handle.result_async(timeout=PATIENCE) == [forged, [forged]]
            assert (await handle.info_async()).input == {"value": forged}
            assert await read(engine, name, "s") == [forged, [forged], 1]


@workflow(name="codecs.echoing")
async def echoing(value: Any) -> Any:
    for one in (value, [value], 1):
        await write_stream_async("s", one)
    return [value, await recv_async()]
