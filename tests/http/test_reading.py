"""Reading streams over HTTP: which events there are, and where reading resumes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbosflow import Engine, workflow, write_stream_async
from tests.http.events import Received, parsed

if TYPE_CHECKING:
    import httpx


@workflow
async def talk(count: int) -> None:
    for number in range(count):
        await write_stream_async("tokens", f"t{number}\n")


async def test_an_ended_stream_is_read_to_its_end(engine: Engine, client: httpx.AsyncClient) -> None:
    handle = await engine.start_async(talk, 2)
    await handle.result_async()
    answer = await client.get(f"/workflows/{handle.workflow_id}/streams/tokens")
    assert answer.status_code == 200
    assert parsed(answer.text) == [
        Received("start", {"from": 0, "view": "live"}, None),
        Received("chunk", "t0\n", 0),
        Received("chunk", "t1\n", 1),
        Received("complete", {"final": None}, 2),
    ]
