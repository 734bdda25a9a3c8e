"""How long a stream value takes from the write in one process to the reader in another, against raw psycopg.

``python benchmarks/stream_latency.py [--values N] [--interval SECONDS] [--rounds N] [--database-url URL]``

Ours: a workflow writes the time into a stream, a value each interval; a client engine in another process reads it. The
limit: the same with psycopg alone, a commit of one row, a NOTIFY on a second connection, a fetch by whoever hears it.
Both run in turn on one server; what is quoted is the ratio of the medians. The end of the workflow is timed likewise.
The clock is CLOCK_MONOTONIC, which the processes of a host share.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import time
from typing import TYPE_CHECKING

import psycopg

from dbosflow import Engine, sleep_async, workflow, write_stream_async

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection


@workflow
async def clock(values: int, interval: float) -> float:
    """Writes the time into its stream, a value each interval."""
    for _ in range(values):
        await write_stream_async("times", time.monotonic())
        await asyncio.sleep(interval)
    await sleep_async(interval)
    return time.monotonic()


def ours(url: str, values: int, interval: float) -> dict[str, float]:
    """One round of ours, in milliseconds."""
    there, here = multiprocessing.Pipe()
    reader = multiprocessing.get_context("spawn").Process(target=_read_ours, args=(url, there))
    reader.start()
    try:
        with Engine(url) as engine:
            here.recv()
            handle = engine.start(clock.options(workflow_id=f"clock-{time.monotonic_ns()}"), values, interval)
            here.send(handle.workflow_id)
            lags, ended = here.recv()
            end_lag = ended - handle.result()
    finally:
        reader.join()
    return _summary(lags) | {"end": end_lag * 1e3}


def _read_ours(url: str, pipe: Connection) -> None:
    with Engine(url, executes=False) as engine:
        pipe.send("ready")
        lags = [time.monotonic() - written for written in engine.read_stream(pipe.recv(), "times", wait_for=10)]
        pipe.send((lags, time.monotonic()))


def limit(url: str, values: int, interval: float) -> dict[str, float]:
    """One round of raw psycopg, in milliseconds."""
    there, here = multiprocessing.Pipe()
    reader = multiprocessing.get_context("spawn").Process(target=_read_raw, args=(url, there, values))
    with psycopg.connect(url, autocommit=True) as connection, psycopg.connect(url, autocommit=True) as notifier:
        connection.execute("DROP TABLE IF EXISTS latency_limit")
        connection.execute("CREATE TABLE latency_limit (id integer PRIMARY KEY, written double precision)")
        notifier.execute("SET synchronous_commit = off")
        reader.start()
        try:
            here.recv()
            for number in range(values):
                row = (number, time.monotonic())
                connection.execute("INSERT INTO latency_limit VALUES (%s, %s)", row, prepare=True)
                notifier.execute("SELECT pg_notify('latency_limit', '')", prepare=True)
                time.sleep(interval)
            lags = here.recv()
        finally:
            reader.join()
        connection.execute("DROP TABLE latency_limit")
    return _summary(lags)


def _read_raw(url: str, pipe: Connection, values: int) -> None:
    lags: list[float] = []
    with psycopg.connect(url, autocommit=True) as listener, psycopg.connect(url, autocommit=True) as connection:
        listener.execute("LISTEN latency_limit")
        pipe.send("ready")
        for _ in listener.notifies():
            rows = connection.execute("SELECT written FROM latency_limit WHERE id >= %s", (len(lags),), prepare=True)
            lags += [time.monotonic() - written for (written,) in rows]
            if len(lags) == values:
                break
    pipe.send(lags)


def _summary(lags: list[float]) -> dict[str, float]:
    ordered = sorted(lags)
    return {"p50": statistics.median(ordered) * 1e3, "p99": ordered[int(len(ordered) * 0.99)] * 1e3}


def main() -> None:
    """Runs the rounds in turn and prints the medians and their ratio, as a table and as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--values", type=int, default=200)
    parser.add_argument("--interval", type=float, default=0.02)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--database-url")
    options = parser.parse_args()
    with Engine(options.database_url) if options.database_url else Engine.ephemeral() as engine:
        results: dict[str, list[dict[str, float]]] = {"dbosflow": [], "psycopg": []}
        rounds: dict[str, Callable[[str, int, float], dict[str, float]]] = {"dbosflow": ours, "psycopg": limit}
        for _ in range(options.rounds):
            for name, run in rounds.items():
                results[name].append(run(engine.database_url, options.values, options.interval))
    medians = {
        name: {figure: statistics.median(one[figure] for one in found) for figure in found[0]}
        for name, found in results.items()
    }
    for name, figures in medians.items():
        print(f"{name:10}", "  ".join(f"{figure} {value:7.2f} ms" for figure, value in figures.items()))
    ratios = {figure: medians["dbosflow"][figure] / medians["psycopg"][figure] for figure in ("p50", "p99")}
    print("ratio     ", "  ".join(f"{figure} {value:7.2f}   " for figure, value in ratios.items()))
    print(json.dumps({"medians": medians, "ratios": ratios}))


if __name__ == "__main__":
    main()
