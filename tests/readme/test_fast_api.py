"""The example with FastAPI does as it says: a client that comes again reads on where it was."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.cli.shell import Shell
from tests.http.events import parsed

ROOT = Path(__file__).parents[2]

SERVER = """
import asyncio, socket, sys
import uvicorn
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
server = uvicorn.Server(uvicorn.Config("examples.fast_api:app", log_level="warning"))
asyncio.run(server.serve([listening]))
"""


@pytest.fixture
def shell(database_url: str) -> Shell:
    """A shell in the repository."""
    shell = Shell(ROOT)
    shell.use(database_url)
    return shell


def test_a_story_is_read_on_where_the_connection_broke(shell: Shell) -> None:
    try:
        worker = shell.start("worker", "examples.fast_api")
        server = shell.python("-c", SERVER)
        worker.await_log("the worker is ready")
        url = f"http://127.0.0.1:{server.out.readline().strip()}"
        story = httpx.post(f"{url}/stories", params={"topic": "crashes"}, timeout=60).json()["id"]
        text = ""
        with httpx.stream("GET", f"{url}/stories/{story}", timeout=60) as answer:
            for part in answer.iter_text():
                text += part
                if text.count("event: chunk") >= 2:
                    break
        before = [event for event in parsed(text.rpartition("\n\n")[0]) if event.event == "chunk"]
        rest = httpx.get(f"{url}/stories/{story}", headers={"Last-Event-ID": str(before[-1].id)}, timeout=60)
        events = [*before, *parsed(rest.text)]
        told = " ".join(event.data for event in events if event.event == "chunk")
        assert told == "Once upon a time there was a database that crashes could not harm"
        assert events[-1].event == "complete"
        mounted = httpx.get(f"{url}/durable/workflows/{story}/streams/words?format=json", timeout=60).json()
        assert " ".join(event["data"] for event in mounted["events"] if event["event"] == "chunk") == told
        assert httpx.get(f"{url}/stories/nobody", timeout=60).status_code == 404
    finally:
        shell.close()
