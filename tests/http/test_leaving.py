"""How answers end before their stream does: the client is gone, does not read, or the server drains."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import psycopg

from dbosflow import Engine, workflow, write_stream_async
from dbosflow.http import Drain, Limits, create_app, stream_response
from tests.http.connection import Connection
from tests.http.flows import let_go, passed, pause_in_the_middle
from tests.http.test_reading import stream_of
from tests.support import eventually_async

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


def waiting(engine: Engine) -> int:
    """How many readers wait in the hub."""
    core = engine._open_core
    assert core is not None
    return sum(len(tail.asks) for tail in core.services.hub._tails.values())


async def test_a_client_that_is_gone_frees_its_reader_at_once(engine: Engine) -> None:
    handle = await engine.start_async(pause_in_the_middle, 1)
    app = create_app(engine, streams=["tokens"])
    for query in ("", "?format=ndjson", "?view=committed", "?format=json&from=1&timeout=20"):
        answer = Connection(app, stream_of(handle.workflow_id) + query)
        await eventually_async(lambda: waiting(engine) == 1)
        await answer.leave()
        assert waiting(engine) == 0
        assert app.context.drain.count == 0


async def test_connects_and_disconnects_leave_nothing(engine: Engine, connections: int) -> None:
    """In memory: no task, no reader, no object of ours."""
    handle = await engine.start_async(pause_in_the_middle, 1)
    app = create_app(engine, streams=["tokens"])

    async def connect_and_leave() -> None:
        answer = Connection(app, stream_of(handle.workflow_id))
        await answer.until("up-to-date")
        await answer.leave()

    async def objects() -> int:
        await asyncio.sleep(0)
        gc.collect()
        return len(gc.get_objects())

    for _ in range(20):
        await connect_and_leave()
    tasks, before = len(asyncio.all_tasks()), await objects()
    for _ in range(connections // 20):
        await asyncio.gather(*[connect_and_leave() for _ in range(20)])
    assert len(asyncio.all_tasks()) == tasks
    assert waiting(engine) == 0
    assert await objects() - before < 200 + connections // 50


async def test_a_draining_application_asks_its_clients_to_leave(engine: Engine) -> None:
    """And to connect again soon, not all at the same moment; whoever comes then is sent elsewhere."""
    handle = await engine.start_async(pause_in_the_middle, 1)
    app = create_app(engine, streams=["tokens"])
    path = stream_of(handle.workflow_id)
    answers = [Connection(app, path) for _ in range(5)]
    poll = Connection(app, f"{path}?format=json&from=1&timeout=20")
    for answer in answers:
        await answer.until("chunk")
    await eventually_async(lambda: waiting(engine) == 6)
    app.drain()
    for answer in answers:
        await answer.whole()
        assert answer.ended
        assert answer.parts[-1].startswith(b"retry: ")
        assert 50 <= int(answer.parts[-1].split()[1]) <= 500
    await poll.whole()
    assert b'"closed":false' in poll.body
    late = Connection(app, path)
    await late.whole()
    assert (late.status, late.headers["connection"], late.headers["retry-after"]) == (503, "close", "1")


async def test_an_event_source_comes_again_where_others_are_refused(database_url: str) -> None:
    """It would give up for good on a 503; on what is for ever it does so rightly."""
    engine = await Engine(database_url, grace=0.1).open_async()
    handle = await engine.start_async(pause_in_the_middle, 1)
    path, accept = stream_of(handle.workflow_id), {"Accept": "text/event-stream"}
    leaving, open_app = create_app(engine, streams=["tokens"], retry=2.0), create_app(engine, streams=["tokens"])
    leaving.drain()
    unknown = Connection(open_app, stream_of("nobody"), accept)
    await unknown.whole()
    assert unknown.status == 404
    await engine.close_async()
    for app, retry in ((leaving, b"retry: 2000\n\n"), (open_app, b"retry: 1000\n\n")):
        source = Connection(app, path, accept)
        await source.whole()
        assert (source.status, source.headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
        assert (source.headers["cache-control"].partition(",")[0], source.body) == ("no-store", retry)
        other = Connection(app, path, {"Accept": "application/x-ndjson"})
        await other.whole()
        assert other.status == 503


async def test_who_waits_for_a_workflow_to_exist_is_asked_to_leave(engine: Engine) -> None:
    app = create_app(engine, streams=["tokens"])
    stays = Connection(app, f"{stream_of('later')}?wait=60")
    leaves = Connection(app, f"{stream_of('later')}?wait=60")
    await eventually_async(lambda: app.context.drain.count == 2)
    await leaves.leave()
    assert app.context.drain.count == 1
    app.drain()
    await stays.whole()
    assert (stays.status, stays.headers["retry-after"]) == (503, "1")


async def test_an_application_of_ones_own_drains_too(engine: Engine) -> None:
    handle = await engine.start_async(pause_in_the_middle, 1)
    drain = Drain()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.requests import Request

        request = Request(scope, receive)
        await (await stream_response(engine, handle.workflow_id, "tokens", request, drain=drain))(scope, receive, send)

    answer = Connection(app, "/")
    await answer.until("chunk")
    drain.begin()
    await answer.whole()
    assert answer.parts[-1].startswith(b"retry: ")


async def test_a_quiet_stream_gives_signs_of_life(engine: Engine) -> None:
    """Also while the workflow does not go on."""
    handle = await engine.start_async(pause_in_the_middle, 1)
    app = create_app(engine, streams=["tokens"], heartbeat=0.01)
    for form, sign in [("sse", b":\n\n"), ("ndjson", b"\n")]:
        async with Connection(app, f"{stream_of(handle.workflow_id)}?format={form}") as answer:
            while answer.parts[-2:] != [sign, sign]:
                await answer.news()


PIECE = "x" * 10_000


@workflow(name="http writes_a_lot")
async def writes_a_lot(pieces: int) -> None:
    for _ in range(pieces):
        await write_stream_async("tokens", PIECE)
    await passed()


async def test_a_client_that_does_not_read_holds_little(engine: Engine) -> None:
    """A page at most, whatever there is to read; and it counts as gone after a while."""
    handle = await engine.start_async(writes_a_lot, 1000)
    async with Connection(create_app(engine, streams=["tokens"]), stream_of(handle.workflow_id)) as reads:
        await reads.until("chunk", 1000)
    pages = 0
    app = create_app(engine, streams=["tokens"], limits=Limits(send_timeout=0.2))
    original = engine.read_stream_pages

    def counted(*args: Any, **kwargs: Any) -> Any:
        pages_of = original(*args, **kwargs)

        class Counted:
            async def __anext__(self) -> Any:
                nonlocal pages
                pages += 1
                return await anext(pages_of)

        return Counted()

    engine.read_stream_pages = counted  # type: ignore[method-assign]
    answer = Connection(app, stream_of(handle.workflow_id))
    answer.takes = 1
    await answer.whole()
    assert pages == 1
    assert len(answer.body) < 200_000
    assert not answer.ended
    assert app.context.drain.count == 0
    let_go(handle.workflow_id).set()
    await handle.result_async()


async def test_an_engine_that_closes_ends_the_answers(database_url: str) -> None:
    engine = await Engine(database_url, grace=0.1).open_async()
    handle = await engine.start_async(pause_in_the_middle, 1)
    app = create_app(engine, streams=["tokens"])
    answer = Connection(app, stream_of(handle.workflow_id))
    await answer.until("up-to-date")
    await engine.close_async()
    await answer.whole()
    assert answer.ended
    later = Connection(app, stream_of(handle.workflow_id))
    await later.whole()
    assert later.status == 503


async def test_a_blocked_workflow_keeps_its_readers(engine: Engine, database_url: str) -> None:
    """They get signs of life, and what comes once it goes on; here it is its end."""
    handle = await engine.start_async(pause_in_the_middle.options(queue="nobody"), 1)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE dbosflow.workflow SET status = 'blocked' WHERE id = %s", [handle.workflow_id])
    app = create_app(engine, streams=["tokens"], heartbeat=0.01)
    async with Connection(app, stream_of(handle.workflow_id)) as answer:
        while answer.body.count(b":\n\n") < 3:
            await answer.news()
        queries = engine._open_core.services.hub.queries if engine._open_core else 0
        await engine.resume_async(handle.workflow_id)
        await handle.cancel_async()
        events = await answer.whole()
    assert [event.event for event in events] == ["start", "up-to-date", "cancelled"]
    assert queries < 10  # it asks when there is news, and not all the time
