"""Streams: how many values, how late, and what many readers cost."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from benchmarks import loop
from benchmarks.fanout import fanout_figures
from benchmarks.gate import Gate, gates
from benchmarks.halves import half
from benchmarks.job import Figures, Job, Scenario, delays
from benchmarks.meter import metered
from dbosflow import Engine, step, workflow, write_stream_async

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_WRITERS = 50
_VALUES_EACH = 200
_INTERVAL = 0.02


@workflow
async def writing(gate: str, values: int) -> None:
    """Writes so many values, from its body."""
    await gates[gate].passed()
    for number in range(values):
        await write_stream_async("values", number)


@step
async def write_in_step(values: int) -> None:
    """Writes so many values, from a step."""
    for number in range(values):
        await write_stream_async("values", number)


@workflow
async def writing_in_step(gate: str, values: int) -> None:
    """One step that writes them."""
    await gates[gate].passed()
    await write_in_step(values)


@workflow
async def ticking(values: int, interval: float, late: float = 0.0) -> None:
    """Writes the time into its stream, a value each interval; the pace does not slip."""
    began = time.monotonic() + late
    for number in range(values):
        await asyncio.sleep(max(0.0, began + number * interval - time.monotonic()))
        await write_stream_async("times", time.monotonic())


def one_body(job: Job) -> Figures:
    """Values from one body, until the end that makes them durable."""
    return loop.run(_written(job, workflows=1, each=job.size, waves=1, in_step=False))


def fifty_bodies(job: Job) -> Figures:
    """Values from 50 bodies, 200 each, or fewer."""
    return loop.run(_written(job, **_of_fifty(job.size), in_step=False))


def fifty_steps(job: Job) -> Figures:
    """The same, written inside steps."""
    return loop.run(_written(job, **_of_fifty(job.size), in_step=True))


def _of_fifty(size: int) -> dict[str, int]:
    each = min(_VALUES_EACH, size // _WRITERS)
    return {"workflows": _WRITERS, "each": each, "waves": size // (_WRITERS * each)}


async def _written(job: Job, *, workflows: int, each: int, waves: int, in_step: bool) -> Figures:
    target = writing_in_step if in_step else writing
    async with Engine(job.url) as engine:
        gates["warm-up"] = Gate()
        gates["warm-up"].open()
        await asyncio.gather(*(engine.run_async(target, "warm-up", 20) for _ in range(workflows)))
        for wave in range(waves):
            gates[f"wave {wave}"] = Gate()
        handles = [
            [await engine.start_async(target, f"wave {wave}", each) for _ in range(workflows)] for wave in range(waves)
        ]
        for wave in range(waves):
            await gates[f"wave {wave}"].gather(workflows)
        with metered(job.url) as meter:
            for wave, started in enumerate(handles):
                gates[f"wave {wave}"].open()
                await asyncio.gather(*(handle.result_async() for handle in started))
        return meter.rate(workflows * each * waves)


def latency(job: Job) -> Figures:
    """A value each 20 ms to a reader in another process."""
    return loop.run(_latency(job, streams=1))


def latency_of_fifty(job: Job) -> Figures:
    """50 such streams, one a little after the other, each with a reader; all of those in one other process."""
    return loop.run(_latency(job, streams=_WRITERS))


async def _latency(job: Job, *, streams: int) -> Figures:
    with half(_read_times, job.url) as reader:
        async with Engine(job.url) as engine:
            await engine.run_async(ticking, 5, 0.01)
            await asyncio.to_thread(reader.receive)
            ids = [f"ticking-{number}" for number in range(streams)]
            reader.send(ids)
            with metered(job.url) as meter:
                started = await asyncio.gather(
                    *(
                        engine.start_async(
                            ticking.options(workflow_id=one), job.size, _INTERVAL, _INTERVAL * number / streams
                        )
                        for number, one in enumerate(ids)
                    )
                )
                await asyncio.gather(*(handle.result_async() for handle in started))
            lags, last = await asyncio.to_thread(reader.receive)
    values = job.size * streams
    return delays(lags) | {"rate": values / (last - meter.started)} | meter.costs(values)


def _read_times(pipe: Connection, url: str) -> None:
    loop.run(_read_all_times(pipe, url))


async def _read_all_times(pipe: Connection, url: str) -> None:
    lags: list[float] = []

    async def read(engine: Engine, workflow_id: str) -> None:
        async for item in engine.read_stream_async(workflow_id, "times", wait_for=30):
            if item.closed:
                break
            lags.append(time.monotonic() - item.value)

    async with Engine(url, executes=False) as engine:
        pipe.send("ready")
        ids = await asyncio.to_thread(pipe.recv)
        await asyncio.gather(*(read(engine, one) for one in ids))
        pipe.send((lags, time.monotonic()))


def stream_end(job: Job) -> Figures:
    """How late a reader in another process sees a workflow's end, after the caller that waits for its result here."""
    return loop.run(_stream_end(job))


async def _stream_end(job: Job) -> Figures:
    behind = []
    with half(_await_ends, job.url) as reader:
        async with Engine(job.url) as engine:
            await engine.run_async(ticking, 5, 0.01)
            await asyncio.to_thread(reader.receive)
            for number in range(job.size):
                started = await engine.start_async(ticking.options(workflow_id=f"ending-{number}"), 5, 0.01)
                reader.send(started.workflow_id)
                await started.result_async()
                ended = time.monotonic()
                behind.append(await asyncio.to_thread(reader.receive) - ended)
            reader.send(None)
    return delays(behind)


def _await_ends(pipe: Connection, url: str) -> None:
    with Engine(url, executes=False, loop_factory=loop.factory()) as engine:
        pipe.send("ready")
        while workflow_id := pipe.recv():
            for _ in engine.read_stream(workflow_id, "times", wait_for=30):
                pass
            pipe.send(time.monotonic())


def fanout(job: Job) -> Figures:
    """Transactions a flush with 1 and with 200 readers of one stream, all in one process."""
    return fanout_figures(job, _write_flushes, _read_flushes)


def _write_flushes(pipe: Connection, url: str, values: int, interval: float) -> None:
    with Engine(url, loop_factory=loop.factory()) as engine:
        pipe.send("ready")
        engine.run(ticking.options(workflow_id=pipe.recv()), values, interval)


def _read_flushes(pipe: Connection, url: str, readers: int) -> None:
    loop.run(_read_many(pipe, url, readers))


async def _read_many(pipe: Connection, url: str, readers: int) -> None:
    async with Engine(url, executes=False) as engine:

        async def read(workflow_id: str) -> int:
            found = [item async for item in engine.read_stream_async(workflow_id, "times", wait_for=30)]
            return len(found) - 1

        pipe.send("ready")
        workflow_id = await asyncio.to_thread(pipe.recv)
        pipe.send(sum(await asyncio.gather(*(read(workflow_id) for _ in range(readers)))))


SCENARIOS: dict[str, Scenario] = {
    "stream_one": one_body,
    "stream_50": fifty_bodies,
    "stream_steps": fifty_steps,
    "latency": latency,
    "latency_50": latency_of_fifty,
    "stream_end": stream_end,
    "fanout": fanout,
}
