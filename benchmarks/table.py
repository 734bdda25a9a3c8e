"""The rows of the table, the targets, and how much work a measurement has.

Targets are ratios in one run, where the peer or the limit does the same; where it does not, they are absolute.
"""

from __future__ import annotations

from dataclasses import dataclass

CONTENDERS = ("ours", "peer", "limit", "absurd", "tasks", "pgqueuer", "oban", "ours_asyncio")
"""In the order of the tables' columns; each is a module that ``benchmarks.measure`` imports."""

MAIN = ("ours", "peer", "limit")
"""Those of the main table, which has the targets."""

OTHERS = ("absurd", "tasks", "pgqueuer", "oban")
"""Peers with a table of their own."""


@dataclass(frozen=True)
class Row:
    """One row: a figure of a scenario.

    ``faster`` and ``near`` are the targets against the peer (so many times better, at least) and the limit (for rates at
    least this share of it, for times at most so many times as long); ``at_most`` is one in the row's unit, and
    ``at_least`` another.
    """

    name: str
    title: str
    scenario: str
    figure: str
    unit: str
    faster: float | None = None
    near: float | None = None
    at_most: float | None = None
    at_least: float | None = None
    more_is_better: bool = False
    peer_figure: str = ""
    """Where a peer's is another: measured with what suits the scenario best, not with its defaults."""

    def peer_key(self) -> str:
        """A peer's figure."""
        return self.peer_figure or self.figure


@dataclass(frozen=True)
class Work:
    """How much each contender does in one measurement of a scenario, at leisure and in a hurry.

    What is counted is in the scenario's docstring. The slower ones get less: rates and medians do not depend on it.
    """

    sizes: dict[str, int]
    quick: dict[str, int]

    def size(self, contender: str, *, quick: bool) -> int | None:
        """``None``: it has no part in this scenario, or not in a hurry."""
        return (self.quick if quick else self.sizes).get(contender)


def _work(ours: int, peer: int, limit: int | None = None, **others: int) -> dict[str, int]:
    found = {"ours": ours, "peer": peer} | others
    return found if limit is None else found | {"limit": limit}


IN_A_HURRY = 150.0
"""Seconds after which ``--quick`` begins no measurement any more."""

WORK: dict[str, Work] = {
    "steps_async": Work(
        _work(3000, 400, 3000, absurd=400, ours_asyncio=3000), _work(1000, 100, 1000, absurd=200, ours_asyncio=1000)
    ),
    "steps_sync": Work(_work(3000, 400, 3000, absurd=400), _work(1000, 100, 1000)),
    "steps_100": Work(
        _work(20_000, 600, 50_000, absurd=1000, ours_asyncio=20_000),
        _work(5000, 200, 20_000, absurd=500, ours_asyncio=5000),
    ),
    "steps_1000": Work(_work(20_000, 2000, 100_000, ours_asyncio=20_000), _work(10_000, 1000, 50_000)),
    "relaxed_async": Work(_work(60_000, 400, 3000, ours_asyncio=60_000), _work(20_000, 100, 1000, ours_asyncio=20_000)),
    "relaxed_sync": Work(_work(60_000, 400, 3000), _work(20_000, 100, 1000)),
    "relaxed_100": Work(_work(60_000, 600, 50_000), _work(20_000, 200, 20_000)),
    "transactions": Work(_work(1500, 200, 1500), _work(300, 60, 300)),
    "transactions_100": Work(_work(4000, 400, 6000), _work(1500, 200, 2000)),
    "no_step": Work(_work(20_000, 1000, 20_000, ours_asyncio=20_000), _work(5000, 1000, 5000)),
    "start_to_result": Work(_work(500, 200, 1000, ours_asyncio=500), _work(200, 60, 300, ours_asyncio=200)),
    "stream_one": Work(_work(50_000, 400, 50_000), _work(20_000, 100, 20_000)),
    "stream_50": Work(_work(50_000, 500, 50_000), _work(20_000, 100, 20_000)),
    "stream_steps": Work(_work(50_000, 500, 50_000), _work(20_000, 100, 20_000)),
    "latency": Work(_work(200, 200, 200, ours_asyncio=200), _work(60, 60, 60)),
    "latency_50": Work(_work(150, 20, 150), {"ours": 60, "limit": 60}),
    "stream_end": Work(_work(20, 8, 200), _work(8, 3, 60)),
    "fanout": Work(_work(100, 50), {"ours": 40}),
    "queue": Work(
        _work(2000, 2000, absurd=2000, tasks=2000, pgqueuer=2000, oban=2000, ours_asyncio=2000),
        _work(1000, 400, absurd=400, tasks=400, pgqueuer=1000, oban=1000),
    ),
    "queue_many": Work(
        {"ours": 2000, "tasks": 2000, "pgqueuer": 2000, "oban": 2000, "ours_asyncio": 2000},
        {"ours": 1000, "tasks": 400, "pgqueuer": 1000, "oban": 1000},
    ),
    "queue_limited": Work(_work(2000, 100, pgqueuer=600), _work(600, 60, pgqueuer=200)),
    "queue_limited_tuned": Work(_work(2000, 600), _work(600, 200)),
    "queue_partitions": Work(_work(3000, 3000, tasks=3000, pgqueuer=3000), _work(3000, 1500)),
    "queue_idle": Work(
        _work(40, 8, 40, absurd=8, tasks=20, pgqueuer=20, oban=20),
        {"ours": 20, "limit": 20, "absurd": 3, "tasks": 10, "pgqueuer": 10, "oban": 10},
    ),
    "queue_at_once": Work(_work(80, 80, tasks=80, pgqueuer=80, oban=80), _work(40, 40, tasks=40, pgqueuer=40, oban=40)),
    "start_many": Work(_work(20_000, 1000, 20_000), _work(5000, 200, 5000)),
    "messages": Work(_work(200, 100, ours_asyncio=200), _work(60, 30)),
    "recovery": Work(_work(1000, 1000), _work(300, 300)),
    "replay": Work(_work(20_000, 1000), _work(10_000, 300)),
    "memory": Work(_work(1000, 1000), _work(1000, 300)),
}

ROWS: tuple[Row, ...] = (
    Row(
        "steps_async",
        "sequential steps of one async workflow",
        "steps_async",
        "rate",
        "/s",
        6,
        0.75,
        more_is_better=True,
    ),
    Row("steps_sync", "sequential steps of one sync workflow", "steps_sync", "rate", "/s", 4, 0.4, more_is_better=True),
    Row("steps_100", "steps of 100 concurrent async workflows", "steps_100", "rate", "/s", 100, more_is_better=True),
    Row(
        "steps_1000", "steps of 1,000 concurrent async workflows", "steps_1000", "rate", "/s", 100, more_is_better=True
    ),
    Row(
        "relaxed_async",
        "relaxed steps of one async workflow",
        "relaxed_async",
        "rate",
        "/s",
        150,
        15,
        more_is_better=True,
    ),
    Row(
        "relaxed_sync", "relaxed steps of one sync workflow", "relaxed_sync", "rate", "/s", 150, 12, more_is_better=True
    ),
    Row(
        "relaxed_100",
        "relaxed steps of 100 concurrent async workflows",
        "relaxed_100",
        "rate",
        "/s",
        160,
        more_is_better=True,
    ),
    Row("transactions", "transactions of one workflow", "transactions", "rate", "/s", 5, 0.6, more_is_better=True),
    Row(
        "transactions_100",
        "transactions of 100 concurrent workflows",
        "transactions_100",
        "rate",
        "/s",
        10,
        0.7,
        more_is_better=True,
    ),
    Row("no_step", "no-step workflows, 1,000 at a time", "no_step", "rate", "/s", 50, more_is_better=True),
    Row("start_to_result", "start to result in process, p50", "start_to_result", "p50", "ms", 2.5, 1.4),
    Row("stream_one", "stream values of one body", "stream_one", "rate", "/s", 300, more_is_better=True),
    Row("stream_50", "stream values, 50 workflows x 200", "stream_50", "rate", "/s", 300, more_is_better=True),
    Row(
        "stream_steps",
        "stream values written inside steps, 50 workflows",
        "stream_steps",
        "rate",
        "/s",
        150,
        more_is_better=True,
    ),
    Row("latency_p50", "stream latency to another process, p50", "latency", "p50", "ms", 8, 1.2),
    Row("latency_p99", "stream latency to another process, p99", "latency", "p99", "ms", 6, 1.5),
    Row("latency_tuned", "... peer notifying each 1 ms, p50", "latency", "p50", "ms", peer_figure="p50_tuned"),
    Row("latency_50", "50 streams and readers, 2,500 values/s, p50", "latency_50", "p50", "ms", at_most=4),
    Row("latency_50_p99", "50 streams and readers, 2,500 values/s, p99", "latency_50", "p99", "ms"),
    Row(
        "latency_50_rate",
        "50 streams and readers, values/s kept",
        "latency_50",
        "rate",
        "/s",
        at_least=2450,
        more_is_better=True,
    ),
    Row("fanout", "transactions a flush, 200 readers against 1", "fanout", "growth", "x", at_most=1.1),
    Row("fanout_200", "transactions a flush, 200 readers", "fanout", "readers_200", ""),
    Row("stream_end", "end of a workflow seen by a reader, p50", "stream_end", "p50", "ms", near=1.8),
    Row("queue", "queue: enqueue 2,000, run, done", "queue", "rate", "/s", 18, more_is_better=True),
    Row("queue_many", "... enqueued in one call", "queue_many", "rate", "/s", more_is_better=True),
    Row("queue_limited", "queue: 10 at a time in all", "queue_limited", "rate", "/s", 10, more_is_better=True),
    Row("queue_limited_tuned", "... peer polling at 20 ms", "queue_limited_tuned", "rate", "/s", more_is_better=True),
    Row(
        "queue_partitions",
        "queue: 1,000 partitions, 1 of each at a time",
        "queue_partitions",
        "rate",
        "/s",
        10,
        more_is_better=True,
    ),
    Row("queue_at_once", "most at once, 2 workers, 10 at a time", "queue_at_once", "limited", "", at_most=10),
    Row("queue_of_one", "most of a partition at once, 2 workers", "queue_at_once", "partitioned", "", at_most=1),
    Row("queue_idle", "enqueue to result, idle queue, p50", "queue_idle", "p50", "ms", near=1.2),
    Row("queue_idle_tuned", "... peer polling at 50 ms", "queue_idle", "p50", "ms", peer_figure="p50_tuned"),
    Row("start_many", "enqueue 20,000 in one call", "start_many", "rate", "/s", 20, 0.5, more_is_better=True),
    Row("messages", "message to a workflow elsewhere, event back, p50", "messages", "p50", "ms", 2),
    Row("messages_p99", "message to a workflow elsewhere, event back, p99", "messages", "p99", "ms"),
    Row("recovery", "recovery of 1,000 interrupted workflows", "recovery", "seconds", "s", 10),
    Row("replay", "replay of a recorded step", "replay", "step_us", "us", 100),
    Row("memory", "memory of a sleeping async workflow", "memory", "kilobytes", "KB", at_most=7),
    Row("memory_threads", "threads of 1,000 sleeping workflows", "memory", "threads", "", at_most=0),
)

LEFT_OUT: tuple[str, ...] = (
    "a limit over all workers of Procrastinate, Oban and Absurd: they have none, see the most at once",
    "partitions of Oban and Absurd: they have none; those of Procrastinate are locks, those of PgQueuer functions",
    "relaxed steps of DBOS, and of the limit: these are their ordinary steps, a commit each",
    "memory of workflows that wait for more than a minute: those of dbosflow are in none by then",
    "Absurd's streams, and its recovery: it has none, and waits for the end of a claim, 120 s by default",
)
"""What is not here, and why."""
