"""``dbosflow worker --status``: the live workers, what each of them runs, and what its queues have room for."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbosflow.cli import console
from dbosflow.cli.console import say
from dbosflow.cli.database import client
from dbosflow.types import QueueInfo

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence

    from dbosflow.types import WorkerInfo

FIELDS = (
    'with --status, an array of workers: "id", "host", "pid", "version", "version_name", "queues", "started_at", '
    '"silent" and "lease" (seconds), "running", an array of "id", "name", "queue", "started_at" and "age" (seconds), '
    'and "slots", an array of "queue", "running" (here) with its limit "worker_concurrency", "running_in_all" '
    '(the workers) with its limit "concurrency" (null: no limit), "waiting" and "paused"'
)


@dataclass(frozen=True, slots=True)
class Slots:
    """What a worker runs of a queue, and how much it may."""

    queue: str
    running: int
    """How many workflows of the queue this worker runs."""
    worker_concurrency: int | None
    running_in_all: int
    """How many all workers run."""
    concurrency: int | None
    waiting: int
    paused: bool


def show_status(args: argparse.Namespace) -> int:
    """Prints the live workers."""
    with client(args) as engine:
        found = engine.list_workers()
        queues = {one.name: one for one in engine.queues.list()} if found else {}
    slots = [tuple(_slots(one, queues)) for one in found]
    if args.json:
        say(console.document([{**console.fields_of(one), "slots": its} for one, its in zip(found, slots, strict=True)]))
    elif not found:
        console.complain("no worker is alive")
    else:
        say("\n\n".join("\n".join(_lines(one, its)) for one, its in zip(found, slots, strict=True)))
    return 0


def _slots(worker: WorkerInfo, queues: Mapping[str, QueueInfo]) -> Iterator[Slots]:
    """Of each queue that it serves, or that it runs something of."""
    here = Counter(one.queue for one in worker.running if one.queue)
    for name in sorted({*worker.queues, *here}):
        its = queues.get(name) or QueueInfo(name)
        yield Slots(
            *(name, here[name], its.worker_concurrency, its.running, its.concurrency, its.waiting), paused=its.paused
        )


def _lines(worker: WorkerInfo, slots: tuple[Slots, ...]) -> Iterator[str]:
    version = f"dbosflow {worker.version}" + (f", version {worker.version_name}" if worker.version_name else "")
    silent = f"renewed {console.duration(max(worker.silent, 0.0))} ago, expires after {console.duration(worker.lease)}"
    yield f"worker {worker.id}"
    yield f"  process  {worker.pid} on {console.visible(worker.host)}, {console.visible(version)}"
    yield f"  queues   {console.visible(', '.join(worker.queues)) or '-'}"
    if slots:
        yield from _indented(("QUEUE", "RUNS HERE", "IN ALL WORKERS", "WAITING"), [_row(one) for one in slots])
    yield f"  lease    since {console.moment(worker.started_at)}, {silent}"
    yield f"  runs     {console.counted(len(worker.running), 'workflow')}"
    if worker.running:
        rows = [(one.id, one.name, one.queue or "-", console.duration(one.age)) for one in worker.running]
        yield from _indented(("ID", "NAME", "QUEUE", "AGE"), rows)


def _row(one: Slots) -> tuple[str, ...]:
    return (
        one.queue,
        _of(one.running, one.worker_concurrency),
        _of(one.running_in_all, one.concurrency),
        f"{one.waiting}, paused" if one.paused else str(one.waiting),
    )


def _of(running: int, limit: int | None) -> str:
    return str(running) if limit is None else f"{running} of {limit}"


def _indented(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    return (f"    {line}" for line in console.table(headings, rows).splitlines())
