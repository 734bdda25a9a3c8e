"""``dbosflow worker --status``: the live workers, and what each of them runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbosflow.cli import console
from dbosflow.cli.console import say
from dbosflow.cli.database import client

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from dbosflow.types import WorkerInfo

FIELDS = (
    'with --status, an array of workers: "id", "host", "pid", "version", "version_name", "queues", "started_at", '
    '"silent" and "lease" (seconds), and "running", an array of "id", "name", "queue", "started_at" and "age" (seconds)'
)


def show_status(args: argparse.Namespace) -> int:
    """Prints the live workers."""
    with client(args) as engine:
        found = engine.list_workers()
    if args.json:
        say(console.document(found))
    elif not found:
        console.complain("no worker is alive")
    else:
        say("\n\n".join("\n".join(_lines(one)) for one in found))
    return 0


def _lines(worker: WorkerInfo) -> Iterator[str]:
    version = f"dbosflow {worker.version}" + (f", version {worker.version_name}" if worker.version_name else "")
    silent = f"renewed {console.duration(max(worker.silent, 0.0))} ago, expires after {console.duration(worker.lease)}"
    yield f"worker {worker.id}"
    yield f"  process  {worker.pid} on {console.visible(worker.host)}, {console.visible(version)}"
    yield f"  queues   {console.visible(', '.join(worker.queues)) or '-'}"
    yield f"  lease    since {console.moment(worker.started_at)}, {silent}"
    yield f"  runs     {console.counted(len(worker.running), 'workflow')}"
    if worker.running:
        rows = [(one.id, one.name, one.queue or "-", console.duration(one.age)) for one in worker.running]
        yield from (f"    {line}" for line in console.table(("ID", "NAME", "QUEUE", "AGE"), rows).splitlines())
