"""Streams: how many values, how late, and what many readers cost."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from dbos import DBOS, DBOSClient, SetWorkflowID

from benchmarks.fanout import fanout_figures
from benchmarks.gate import Gate, gates
from benchmarks.halves import half
from benchmarks.job import Figures, Job, Scenario, delays
from benchmarks.meter import metered
from benchmarks.peer.application import launched_here

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_WRITERS = 50
_INTERVAL = 0.02
_PATIENCE = 30
# The shortest interval that it allows between two notifications; 10 ms by default.
_SHORTEST = 0.001


@DBOS.workflow()
async def writing(gate: str, values: int) -> None:
    """Writes so many values, from its body."""
    await gates[gate].passed()
    for number in range(values):
        await DBOS.write_stream_async("values", number)


@DBOS.step()
async def write_in_step(values: int) -> None:
    """Writes so many values, from a step."""
    for number in range(values):
        await DBOS.write_stream_async("values", number)


@DBOS.workflow()
async def writing_in_step(gate: str, values: int) -> None:
    """One step that writes them."""
    await gates[gate].passed()
    await write_in_step(values)


@DBOS.workflow()
async def ticking(values: int, interval: float, late: float = 0.0) -> None:
    """Writes the time into its stream, a value each interval; the pace does not slip while it can be kept."""
    began = time.monotonic() + late
    for number in range(values):
        await asyncio.sleep(max(0.0, began + number * interval - time.monotonic()))
        await DBOS.write_stream_async("times", time.monotonic())


def one_body(job: Job) -> Figures:
    """Values from one body, until the end that makes them durable."""
    return asyncio.run(_written(job, workflows=1, in_step=False))


def fifty_bodies(job: Job) -> Figures:
    """Values from 50 bodies."""
    return asyncio.run(_written(job, workflows=_WRITERS, in_step=False))


def fifty_steps(job: Job) -> Figures:
    """The same, written inside steps."""
    return asyncio.run(_written(job, workflows=_WRITERS, in_step=True))


async def _written(job: Job, *, workflows: int, in_step: bool) -> Figures:
    target = writing_in_step if in_step else writing
    async with launched_here(job.url):
        gates["warm-up"] = Gate()
        gates["warm-up"].open()
        await target("warm-up", 20)
        gate = gates["measured"] = Gate()
        each = job.size // workflows
        handles = [await DBOS.start_workflow_async(target, "measured", each) for _ in range(workflows)]
        await gate.gather(workflows)
        with metered(job.url) as meter:
            gate.open()
            await asyncio.gather(*(handle.get_result() for handle in handles))
        return meter.rate(workflows * each)


def latency(job: Job) -> Figures:
    """A value each 20 ms to a reader in another process; and with the shortest interval between notifications."""
    return _both(job, streams=1)


def latency_of_fifty(job: Job) -> Figures:
    """50 such streams, one a little after the other, each with a reader; all of those in one other process."""
    return _both(job, streams=_WRITERS)


def _both(job: Job, *, streams: int) -> Figures:
    figures = asyncio.run(_latency(job, streams, None))
    tuned = asyncio.run(_latency(job, streams, _SHORTEST))
    return figures | {f"{name}_tuned": tuned[name] for name in ("p50", "p99", "rate")}


async def _latency(job: Job, streams: int, coalesce: float | None) -> Figures:
    with half(_read_times, job.url) as reader:
        async with launched_here(job.url, coalesce=coalesce):
            await ticking(5, 0.01)
            await asyncio.to_thread(reader.receive)
            ids = [f"ticking-{coalesce}-{number}" for number in range(streams)]
            with metered(job.url) as meter:
                handles = await asyncio.gather(
                    *(_start(one, job.size, _INTERVAL, _INTERVAL * number / streams) for number, one in enumerate(ids))
                )
                reader.send(ids)
                await asyncio.gather(*(handle.get_result() for handle in handles))
            lags, last = await asyncio.to_thread(reader.receive)
    values = job.size * streams
    return delays(lags) | {"rate": values / (last - meter.started)} | meter.costs(values)


async def _start(workflow_id: str, values: int, interval: float, late: float = 0.0) -> Any:
    with SetWorkflowID(workflow_id):
        return await DBOS.start_workflow_async(ticking, values, interval, late)


def _read_times(pipe: Connection, url: str) -> None:
    asyncio.run(_read_all_times(pipe, url))


async def _read_all_times(pipe: Connection, url: str) -> None:
    lags: list[float] = []
    last = 0.0

    async def read(client: DBOSClient, workflow_id: str) -> None:
        nonlocal last
        async with aclosing(client.read_stream_async(workflow_id, "times", timeout_seconds=_PATIENCE)) as values:
            async for written in values:
                last = time.monotonic()
                lags.append(last - written)

    client = _client(url)
    pipe.send("ready")
    ids = await asyncio.to_thread(pipe.recv)
    await asyncio.gather(*(read(client, one) for one in ids))
    pipe.send((lags, last))
    client.destroy()


def _client(url: str) -> DBOSClient:
    return DBOSClient(system_database_url=url, use_listen_notify=True, system_database_pool_size=20)


def stream_end(job: Job) -> Figures:
    """How late a reader in another process sees a workflow's end, after the caller that waits for its result here."""
    return asyncio.run(_stream_end(job))


async def _stream_end(job: Job) -> Figures:
    behind = []
    with half(_await_ends, job.url) as reader:
        async with launched_here(job.url):
            await ticking(5, 0.01)
            await asyncio.to_thread(reader.receive)
            for number in range(job.size):
                handle = await _start(f"ending-{number}", 5, 0.01)
                reader.send(f"ending-{number}")
                await handle.get_result()
                ended = time.monotonic()
                behind.append(await asyncio.to_thread(reader.receive) - ended)
            reader.send(None)
    return delays(behind)


def _await_ends(pipe: Connection, url: str) -> None:
    client = _client(url)
    pipe.send("ready")
    while workflow_id := pipe.recv():
        for _ in client.read_stream(workflow_id, "times", timeout_seconds=_PATIENCE):
            pass
        pipe.send(time.monotonic())
    client.destroy()


def fanout(job: Job) -> Figures:
    """Transactions a flush with 1 and with 200 readers of one stream, all in one process."""
    return fanout_figures(job, _write_flushes, _read_flushes)


def _write_flushes(pipe: Connection, url: str, values: int, interval: float) -> None:
    async def run() -> None:
        async with launched_here(url):
            pipe.send("ready")
            handle = await _start(await asyncio.to_thread(pipe.recv), values, interval)
            await handle.get_result()

    asyncio.run(run())


def _read_flushes(pipe: Connection, url: str, readers: int) -> None:
    asyncio.run(_read_many(pipe, url, readers))


async def _read_many(pipe: Connection, url: str, readers: int) -> None:
    client = _client(url)

    async def read(workflow_id: str) -> int:
        async with aclosing(client.read_stream_async(workflow_id, "times", timeout_seconds=_PATIENCE)) as values:
            return len([value async for value in values])

    pipe.send("ready")
    workflow_id = await asyncio.to_thread(pipe.recv)
    # It has no way to wait for a workflow that is not there yet.
    while not await client.list_workflows_async(workflow_ids=[workflow_id]):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    pipe.send(sum(await asyncio.gather(*(read(workflow_id) for _ in range(readers)))))
    client.destroy()


SCENARIOS: dict[str, Scenario] = {
    "stream_one": one_body,
    "stream_50": fifty_bodies,
    "stream_steps": fifty_steps,
    "latency": latency,
    "latency_50": latency_of_fifty,
    "stream_end": stream_end,
    "fanout": fanout,
}
