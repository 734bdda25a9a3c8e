"""Clients on real sockets that come and go in every way leave nothing, in the process or in the database."""

from __future__ import annotations

import asyncio
import gc
import resource
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
import pytest

from dbosflow import Engine, workflow
from dbosflow.http import DurableStreams, create_app, expose
from tests.http.flows import passed, pause_in_the_middle
from tests.http.serving import serving
from tests.http.test_leaving import waiting
from tests.http.test_reading import stream_of
from tests.support import eventually_async

if TYPE_CHECKING:
    from dbosflow.http import HttpApp

AT_A_TIME = 20
GROWTH = {"descriptors": 16, "tasks": 16}
"""What a pool of sessions may grow by: each has a descriptor, and a task that opens it."""


@workflow(name="http lasting")
async def lasting() -> None:
    """Ends when the test lets it go, which it never does."""
    await passed()


lasts = expose(lasting, "/lasting", mode="aggregate", name="http lasts")


async def come_and_go(address: tuple[str, int], request: bytes, number: int) -> None:
    """A client that leaves while its answer goes on: in an orderly way, by a reset, or before there is any of it."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(request)
    if number % 3:
        answered = b"POST" not in request and b"timeout" not in request
        await (reader.readuntil(b"up-to-date") if answered else writer.drain())
    if number % 3 == 1:
        writer.close()
        await writer.wait_closed()
    else:
        writer.transport.abort()


def requests(workflow_id: str) -> list[bytes]:
    """What clients ask for: all of it lasts."""
    path = stream_of(workflow_id)
    lines = [
        f"GET {path} HTTP/1.1",
        f"GET {path}?format=ndjson&view=committed HTTP/1.1",
        f"GET {path}?format=json&from=1&timeout=20 HTTP/1.1",
        f"GET /v1{path}?live=long-poll&offset=now&timeout=20 HTTP/1.1",
        "POST /lasting HTTP/1.1\r\nIdempotency-Key: one\r\nContent-Length: 0",
    ]
    return [f"{line}\r\nHost: localhost\r\n\r\n".encode() for line in lines]


def requests_under_way() -> int:
    """How many requests uvicorn has not done with."""
    return sum("run_asgi" in getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks())


def held(engine: Engine, app: HttpApp) -> dict[str, int]:
    """What the process holds that a client could have left."""
    core = engine._open_core
    assert core is not None
    return {
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "tasks": len(asyncio.all_tasks()),
        "readers": waiting(engine),
        "tails": len(core.services.hub._tails),
        "subscriptions": sum(map(len, core.services.wakeups._subscribers.values())),
        "answers": app.context.drain.count,
    }


def within(after: dict[str, int], before: dict[str, int]) -> bool:
    """Whether no more is held, but for what the pool of sessions may have grown by, however many clients come."""
    return all(count <= before[name] + GROWTH.get(name, 0) for name, count in after.items())


def in_the_database(url: str) -> tuple[int, ...]:
    """Rows of waiters, and sessions."""
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(
            "SELECT (SELECT count(*) FROM dbosflow.waiter), (SELECT count(*) FROM dbosflow.workflow),"
            " (SELECT count(*) FROM dbosflow.worker)"
        ).fetchone()
    assert found is not None
    return found


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the system does not show descriptors")
async def test_clients_on_sockets_leave_nothing(engine: Engine, database_url: str, connections: int) -> None:
    """10,000 of them are a tier of its own: see CONTRIBUTING.md."""
    handle = await engine.start_async(pause_in_the_middle, 1)
    app = create_app(engine, streams=["tokens"], endpoints=[lasts], durable_streams=DurableStreams())
    asked = requests(handle.workflow_id)
    async with serving(app) as client:
        found = urlsplit(str(client.base_url))
        address = (str(found.hostname), int(found.port or 0))

        async def some(count: int) -> None:
            for first in range(0, count, AT_A_TIME):
                numbers = range(first, first + AT_A_TIME)
                await asyncio.gather(*[come_and_go(address, asked[n % len(asked)], n) for n in numbers])
            gc.collect()

        await some(5 * AT_A_TIME)
        await eventually_async(lambda: not requests_under_way())
        before, rows, size = held(engine, app), in_the_database(database_url), len(gc.get_objects())
        memory = resident()
        await some(connections)
        await eventually_async(lambda: not requests_under_way() and within(held(engine, app), before))
        gc.collect()
        growth = f"{resident() - memory} bytes, {len(gc.get_objects()) - size} objects"
        print(f"{connections} came and went: {before}, then {held(engine, app)}, and {growth} more")
        assert in_the_database(database_url) == rows
        assert len(gc.get_objects()) - size < 500 + connections // 50
        assert resident() - memory < 16 * 1024 * 1024


def resident() -> int:
    """Bytes of memory that the process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
