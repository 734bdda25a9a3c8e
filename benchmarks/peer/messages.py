"""Messages and events: a client here, the application in another process."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from dbos import DBOS, DBOSClient, EnqueueOptions

from benchmarks.halves import half
from benchmarks.job import Figures, Job, Scenario, delays
from benchmarks.peer.application import launched

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_UNTIMED = 3


@DBOS.workflow()
async def answering(rounds: int) -> None:
    """Answers each message by an event of its own."""
    for number in range(rounds):
        await DBOS.recv_async("question", timeout_seconds=60)
        await DBOS.set_event_async(f"answer-{number}", number)


def messages(job: Job) -> Figures:
    """From the send of a message to the event that the workflow sets on it, in another process."""
    return asyncio.run(_messages(job))


async def _messages(job: Job) -> Figures:
    took = []
    rounds = job.size + _UNTIMED
    with half(_work, job.url) as application:
        client = DBOSClient(system_database_url=job.url, use_listen_notify=True)
        await asyncio.to_thread(application.receive)
        options: EnqueueOptions = {"workflow_name": answering.__qualname__, "queue_name": "polling-50-ms"}
        workflow_id = (await client.enqueue_async(options, rounds)).get_workflow_id()
        for number in range(rounds):
            began = time.monotonic()
            await client.send_async(workflow_id, number, "question")
            await client.get_event_async(workflow_id, f"answer-{number}")
            took.append(time.monotonic() - began)
        client.destroy()
        application.kill()
    return delays(took[_UNTIMED:])


def _work(pipe: Connection, url: str) -> None:
    async def run() -> None:
        with launched(url):
            pipe.send("ready")
            await asyncio.Event().wait()

    asyncio.run(run())


SCENARIOS: dict[str, Scenario] = {"messages": messages}
