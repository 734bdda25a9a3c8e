"""Values as rows: by COPY where many wait, by a commit and a notification where one is awaited."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psycopg

from benchmarks.halves import half
from benchmarks.job import Figures, Job, Scenario, delays
from benchmarks.meter import metered

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_INSERT = "INSERT INTO value SELECT w, n, v::json FROM unnest(%s::text[], %s::bigint[], %s::text[]) AS r (w, n, v)"
_NEWS = (
    "SELECT v.workflow_id, v.value::text FROM unnest(%s::text[], %s::bigint[]) AS r (w, n)"
    " JOIN value v ON v.workflow_id = r.w AND v.number >= r.n"
)
_INTERVAL = 0.02


def copied(job: Job) -> Figures:
    """One COPY of all."""
    with psycopg.connect(job.url, autocommit=True) as connection, metered(job.url) as meter:
        _copy(connection, job.size)
    return meter.rate(job.size)


def _copy(connection: psycopg.Connection, values: int) -> None:
    with connection.cursor() as cursor, cursor.copy("COPY value FROM STDIN") as copy:
        for number in range(values):
            copy.write_row(("one", number, str(number)))


def latency(job: Job) -> Figures:
    """A commit, a notification on another connection, a fetch by the session that gets it."""
    return _latency(job, streams=1)


def latency_of_fifty(job: Job) -> Figures:
    """The same with a row for each of 50 streams in each commit."""
    return _latency(job, streams=50)


def _latency(job: Job, *, streams: int) -> Figures:
    ids = [f"stream-{number}" for number in range(streams)]
    with (
        half(_read, job.url, ids, job.size) as reader,
        psycopg.connect(job.url, autocommit=True) as connection,
        psycopg.connect(job.url, autocommit=True) as notifier,
    ):
        notifier.execute("SET synchronous_commit = off")
        reader.receive()
        with metered(job.url) as meter:
            for number in range(job.size):
                time.sleep(max(0.0, meter.started + number * _INTERVAL - time.monotonic()))
                values = [str(time.monotonic())] * streams
                connection.execute(_INSERT, (ids, [number] * streams, values), prepare=True)
                notifier.execute("SELECT pg_notify('news', '')", prepare=True)
        lags, last = reader.receive()
    values_in_all = job.size * streams
    return delays(lags) | {"rate": values_in_all / (last - meter.started)} | meter.costs(values_in_all)


def _read(pipe: Connection, url: str, ids: list[str], values: int) -> None:
    lags: list[float] = []
    seen = dict.fromkeys(ids, 0)
    with psycopg.connect(url, autocommit=True) as listener, psycopg.connect(url, autocommit=True) as connection:
        listener.execute("LISTEN news")
        pipe.send("ready")
        for _ in listener.notifies():
            news = connection.execute(_NEWS, (ids, list(seen.values())), prepare=True).fetchall()
            for workflow_id, written in news:
                seen[workflow_id] += 1
                lags.append(time.monotonic() - float(written))
            if len(lags) == values * len(ids):
                break
    pipe.send((lags, time.monotonic()))


SCENARIOS: dict[str, Scenario] = {
    "stream_one": copied,
    "stream_50": copied,
    "stream_steps": copied,
    "latency": latency,
    "latency_50": latency_of_fifty,
    "stream_end": latency,
}
