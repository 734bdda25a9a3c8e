"""``python -m benchmarks.sse``: latency, memory and queries of clients that read streams over HTTP.

Three processes a contender: one writes, one serves, one has the clients. The contenders take turns on one server. A
value is the time at which it was written; its delay runs until the client has its line. Memory is what the serving
process grows by once all clients are connected. Queries are transactions of the database while values come.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from benchmarks.halves import half
from benchmarks.server import database, own_server
from benchmarks.sse import clients, ours

if TYPE_CHECKING:
    from types import ModuleType

CLIENTS, FEW = 1000, 100
LEAD = 20.0
"""Seconds in which the clients connect, before the first value is written."""
LATENCY_RATIO, KIB_A_CLIENT, QUERY_GROWTH = 5.0, 64.0, 1.2


def transactions(url: str) -> int:
    """The transactions of the database so far."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_stat_clear_snapshot()")
        row = connection.execute(
            "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
    assert row
    return int(row[0])


def resident(pid: int | None) -> float:
    """The memory of a process, in KiB."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return next(float(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def measure(
    contender: ModuleType, url: str, count: int, *, streams: int, seconds: int, interval: float
) -> dict[str, Any]:
    """One contender with so many clients."""
    values = max(1, int(seconds / interval))
    with ExitStack() as parts:
        writer = parts.enter_context(half(contender.write, url))
        server = parts.enter_context(half(contender.serve, url))
        reader = parts.enter_context(half(clients.read, url))
        writer.receive()
        address, path = server.receive()
        reader.receive()
        host, port = address.removeprefix("http://").split(":")
        ids = [f"{count}-{number}" for number in range(streams)]
        writer.send((ids, values, interval, LEAD))
        writer.receive()
        before, began = resident(server.process.pid), time.monotonic()
        reader.send((host, int(port), [path.format(ids[number % streams]) for number in range(count)], values))
        reader.receive()
        assert time.monotonic() - began < LEAD, "the clients need longer to connect"
        grown = resident(server.process.pid) - before
        began, started = transactions(url), time.monotonic()
        lags = reader.receive()
        queries = (transactions(url) - began) / (time.monotonic() - started)
        writer.receive()
        writer.send(None)
        server.send(None)
    lags.sort()
    return {
        "clients": count,
        "values": len(lags),
        "lost": count * values - len(lags),
        "p50_ms": statistics.median(lags) * 1000,
        "p99_ms": lags[int(len(lags) * 0.99)] * 1000,
        "kib_a_client": grown / count,
        "queries_s": queries,
    }


def main() -> None:
    """Measures, and says which targets are met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sse", description=__doc__)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between two values of a stream")
    parser.add_argument("--alone", action="store_true", help="without the peer")
    options = parser.parse_args()
    contenders = [ours]
    if not options.alone:
        from benchmarks.sse import peer

        contenders.append(peer)
    found: dict[str, dict[str, Any]] = {}
    with own_server() as server_url:
        for contender in contenders:
            name = contender.__name__.rpartition(".")[2]
            for count in (min(FEW, options.clients), options.clients):
                with database(server_url, f"sse_{name}_{count}") as url:
                    figures = measure(
                        contender,
                        url,
                        count,
                        streams=options.streams,
                        seconds=options.seconds,
                        interval=options.interval,
                    )
                found[f"{name} {count}"] = figures
                print(name, json.dumps({key: round(value, 2) for key, value in figures.items()}), flush=True)
    few, many = found[f"ours {min(FEW, options.clients)}"], found[f"ours {options.clients}"]
    say("KiB a client", many["kib_a_client"], "<=", KIB_A_CLIENT)
    say("queries, many clients to few", many["queries_s"] / few["queries_s"], "<=", QUERY_GROWTH)
    if not options.alone:
        say("p50, the peer's to ours", found[f"peer {options.clients}"]["p50_ms"] / many["p50_ms"], ">=", LATENCY_RATIO)


def say(what: str, value: float, sign: str, target: float) -> None:
    """One target."""
    met = value <= target if sign == "<=" else value >= target
    print(f"{'met ' if met else 'MISSED'} {what}: {value:.2f} {sign} {target:g}")


if __name__ == "__main__":
    main()
