"""How long a suspended workflow takes from a message to its result: ``python -m benchmarks.wakeup [--quick]``.

A client sends to one workflow after the other, each out of memory, and waits for its result: the send, the wake-up, a claim
by a worker in another process, its replay, the record of the message, the end, and the outcome. Beside it, in turn and on
the same server, the same statements by psycopg alone, in the same order, with the same hints between two processes:
nothing is decided, fenced in Python, or replayed there. So what is above 1 is dbosflow's own work, with the replay.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import threading
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg

from benchmarks.halves import half
from benchmarks.server import own_server
from dbosflow import Engine, recv_async, workflow
from dbosflow._records.kinds import RecordKind
from dbosflow._records.producers import unique_outsider
from dbosflow._records.spaces import inbox_key
from dbosflow._runtime.process.identity import this_process
from dbosflow._store import message, step, stream, waiter, worker
from dbosflow._store import workflow as store
from dbosflow._store.batch import write_batch
from dbosflow._store.batch_rows import BatchRows, EndRow, RecordRow, RunRow
from dbosflow._store.notify import listen, notify, part_of, queue_topic, stream_topic, topics_of, workflow_topic
from dbosflow._store.stream import Want
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from multiprocessing.connection import Connection

    from benchmarks.halves import Half

    Bare = psycopg.AsyncConnection[Any]

QUEUE = "wakeup"
SCHEMA = "bare"
"""That of the same statements by psycopg alone."""
INBOX = inbox_key("")
PATIENCE = 60.0
LEASE = 3600.0
SAID = '"hello"'


@workflow(name="wakeup.waiting")
async def waiting() -> str:
    """Waits for a message."""
    received: str = await recv_async(type=str)
    return received


# -- dbosflow ----------------------------------------------------------------------------------------------------------


def _work(pipe: Connection, url: str) -> None:
    """The worker's process."""
    with Engine(url, suspend_after=0.05) as engine:
        threading.Thread(target=engine.run_worker, args=[QUEUE], daemon=True).start()
        pipe.send("ready")
        pipe.recv()


async def _suspended(engine: Engine, url: str, count: int) -> list[str]:
    """So many workflows, all of them out of memory."""
    handles = [await engine.start_async(waiting.options(queue=QUEUE)) for _ in range(count)]
    query = "SELECT count(*) FROM dbosflow.workflow WHERE status = 'waiting'"
    async with asyncio.timeout(PATIENCE), await _connected(url) as connection:
        while await (await connection.execute(query)).fetchone() != (count,):  # noqa: ASYNC110 (it is in the tables)
            await asyncio.sleep(0.1)
    return [handle.workflow_id for handle in handles]


async def _ours(engine: Engine, workflow_id: str) -> float:
    began = time.perf_counter()
    await engine.send_async(workflow_id, "hello")
    await engine.handle(workflow_id).result_async(timeout=PATIENCE)
    return time.perf_counter() - began


# -- psycopg alone -----------------------------------------------------------------------------------------------------


async def _connected(url: str) -> Bare:
    return await psycopg.AsyncConnection.connect(url, autocommit=True)


def _work_bare(pipe: Connection, url: str) -> None:
    asyncio.run(_work_alone(pipe, url))


async def _work_alone(pipe: Connection, url: str) -> None:
    """Claims, records and ends whatever is queued, as soon as it is told."""
    async with await _connected(url) as heard, await _connected(url) as work, await _connected(url) as hints:
        worker_id = uuid4()
        await worker.register(
            work, SCHEMA, worker_id=worker_id, lease=LEASE, process=this_process(), version="benchmark"
        )
        await listen(heard, SCHEMA, [part_of(queue_topic(QUEUE))])
        pipe.send("ready")
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(pipe.fileno(), over.set)
        serving = asyncio.create_task(_serve(heard, work, hints, worker_id))
        await over.wait()
        serving.cancel()


async def _serve(heard: Bare, work: Bare, hints: Bare, worker_id: Any) -> None:
    async for _ in heard.notifies():
        claimed = await store.claim(work, SCHEMA, worker_id=worker_id, queue=QUEUE, names=["wakeup.waiting"], limit=10)
        await step.histories(work, SCHEMA, [one.id for one in claimed])
        for one in claimed:
            await stream.fetch(work, SCHEMA, [Want(one.id, INBOX, 0)])
            record = RecordRow(
                workflow_id=one.id,
                key="recv#0",
                kind=RecordKind.RECV,
                epoch=one.epoch,
                seq=0,
                turn=0,
                attempt=None,
                output=f'{{"topic": "", "offset": 0, "value": {SAID}}}',
                error=None,
                child_id=None,
                delay=None,
                elapsed=0.0,
                loop_key=None,
                loop_offset=None,
                loop_next=None,
            )
            await _write(work, worker_id, BatchRows(runs=[RunRow(one.id, one.epoch)], records=[record]))
            end = EndRow(one.id, one.epoch, WorkflowStatus.SUCCEEDED, SAID, None)
            await _write(work, worker_id, BatchRows(runs=[RunRow(one.id, one.epoch)], ends=[end]))
            await notify(hints, SCHEMA, [workflow_topic(one.id)])


async def _write(connection: Bare, worker_id: Any, rows: BatchRows) -> None:
    if not (await write_batch(connection, rows, worker_id, SCHEMA)).written:
        msg = f"nothing was written of {rows}"
        raise RuntimeError(msg)


class _Bare:
    """The client that sends the statements by itself."""

    def __init__(self, heard: Bare, work: Bare, hints: Bare) -> None:
        self._heard, self._work, self._hints = heard, work, hints

    @classmethod
    @asynccontextmanager
    async def connected(cls, url: str) -> AsyncIterator[_Bare]:
        """One with its connections."""
        async with AsyncExitStack() as resources:
            yield cls(*[await resources.enter_async_context(await _connected(url)) for _ in range(3)])

    async def suspended(self, count: int) -> list[str]:
        """So many workflows that wait in the tables."""
        ids = [str(uuid4()) for _ in range(count)]
        await self._work.execute(
            """INSERT INTO bare.workflow (id, name, status, queue, input, epoch)
                SELECT id, 'wakeup.waiting', 'waiting', %s, '{}', 1 FROM unnest(%s::text[]) AS t (id)""",
            (QUEUE, ids),
        )
        await self._work.execute(
            """INSERT INTO bare.waiter (workflow_id, topic, target_id, key, "offset", committed)
                SELECT id, topic, id, %s, 0, false FROM unnest(%s::text[], %s::text[]) AS t (id, topic)""",
            (INBOX, ids, [stream_topic(one, INBOX) for one in ids]),
        )
        await listen(self._heard, SCHEMA, {part_of(workflow_topic(one)) for one in ids})
        return ids

    async def wake(self, workflow_id: str) -> float:
        """From the message to the result."""
        began = time.perf_counter()
        sent = (workflow_id, INBOX, 1, f"[{SAID}]", len(SAID) + 2, unique_outsider())
        await message.send(self._work, SCHEMA, [sent], max_values=10_000, max_topics=1000)
        topic = stream_topic(workflow_id, INBOX)
        await asyncio.gather(notify(self._hints, SCHEMA, [topic]), waiter.wake_by_topic(self._work, SCHEMA, [topic]))
        await notify(self._hints, SCHEMA, [queue_topic(QUEUE)])
        async with asyncio.timeout(PATIENCE):
            async for hint in self._heard.notifies():
                if workflow_topic(workflow_id) in topics_of(hint.payload):
                    break
        found = await store.outcomes(self._work, SCHEMA, [workflow_id])
        if found[workflow_id].status is not WorkflowStatus.SUCCEEDED:
            msg = f"{workflow_id} is {found[workflow_id].status}"
            raise RuntimeError(msg)
        return time.perf_counter() - began


# -- both --------------------------------------------------------------------------------------------------------------


async def _measure(url: str, workers: list[Half], wakes: int, warm_up: int) -> None:
    for process in workers:
        await asyncio.to_thread(process.receive)
    took: dict[str, list[float]] = {"dbosflow": [], "psycopg alone": []}
    async with Engine(url, executes=False) as engine, _Bare.connected(url) as bare:
        ours, theirs = await _suspended(engine, url, wakes + warm_up), await bare.suspended(wakes + warm_up)
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            found = await _ours(engine, one), await bare.wake(other)
            if number >= warm_up:
                for times, seconds in zip(took.values(), found, strict=True):
                    times.append(1000 * seconds)
    for name, times in took.items():
        print(f"{name}: p50 {statistics.median(times):.2f} ms, p95 {sorted(times)[int(0.95 * len(times))]:.2f} ms")
    p50 = [statistics.median(times) for times in took.values()]
    print(f"ratio of p50, replay included: {p50[0] / p50[1]:.2f}")
    for process in workers:
        process.send("end")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wakes", type=int, default=500, help="how many workflows of each are woken (500)")
    parser.add_argument("--quick", action="store_true", help="only 20 of each")
    options = parser.parse_args()
    wakes, warm_up = (20, 3) if options.quick else (options.wakes, 50)
    with own_server() as url:
        for schema in ("dbosflow", SCHEMA):
            with Engine(url, executes=False, schema=schema):
                pass  # makes the tables
        with half(_work, url) as worker_process, half(_work_bare, url) as bare:
            asyncio.run(_measure(url, [worker_process, bare], wakes, warm_up))


if __name__ == "__main__":
    main()
