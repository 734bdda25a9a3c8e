"""Failover to an asynchronous standby, which has lost what was acknowledged: what is left must be whole all the same.

```text
python -m tests.chaos.lossy --rounds 10
```

While the standby is away, workers go on; then the primary dies, and the standby is promoted. What the workers remember
is ahead of the tables now, and must not be mixed with them: each run begins anew from what the tables hold. What the
server lost is lost, a start as much as an end; whatever is there must have dense streams, records in order, no row of
an epoch that its workflow never had, values that follow from the records, and an end. The exit status is 1 if anything
is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dbosflow import Engine
from tests.behaviour import ledger
from tests.behaviour.tables import disorder, rows
from tests.chaos.checkers.model import expected
from tests.chaos.checkers.sessions import check_leases
from tests.chaos.checkers.streams import check_streams
from tests.chaos.checkers.workflows import check_end
from tests.chaos.clients.trimmer import Trimmer
from tests.chaos.clients.workflow_clients import WorkflowClients
from tests.chaos.clients.writers import Writers
from tests.chaos.generator import operations
from tests.chaos.history.workflow_history import histories
from tests.chaos.nodes.pair import Pair
from tests.chaos.nodes.processes import Launcher, ProgramConfig
from tests.chaos.nodes.workers import WorkerNode
from tests.chaos.report import DurationSample
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.chaos.generator import Operation

_WORKERS = 2
_PATIENCE = 60.0
_SETTINGS = {"safety_poll": 1.0}
"""So often a worker looks for what it owns and does not run: what it had ended before the end was lost."""
_RECORDS = "SELECT count(*) FROM dbosflow.step"
_OPEN = "SELECT count(*) FROM dbosflow.workflow WHERE ended_at IS NULL"


@dataclass
class Losses:
    """What came of it."""

    lost_records: list[int] = field(default_factory=list)
    """So many acknowledged records each failover has lost, at least."""
    until_work: DurationSample = field(default_factory=DurationSample)
    acknowledged: int = 0
    forgotten: int = 0
    """Starts that were acknowledged, and are not there."""
    ended: int = 0
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"{len(self.lost_records)} failovers lost {self.lost_records} records",
            f"of {self.acknowledged} acknowledged workflows {self.forgotten} are not there; {self.ended} have ended",
            f"from the promotion to the next new record: {self.until_work}",
            f"{len(self.violations)} VIOLATIONS" if self.violations else "no violation",
            *(f"  {violation}" for violation in self.violations),
        ]
        return "\n".join(lines)


async def run(pair: Pair, rounds: int, *, seed: int = 1, workflows: int = 40, lag: float = 1.0) -> Losses:
    """So many failovers, each with a standby that is ``lag`` seconds of work behind."""
    losses = Losses()
    async with AsyncExitStack() as resources:
        resources.callback(pair.__exit__)
        await asyncio.to_thread(pair.__enter__)
        engine = await resources.enter_async_context(Engine(pair.url("chaos-client"), executes=False))
        launcher = Launcher(pair.root, losses.violations.append, lambda *_: ProgramConfig(_SETTINGS))
        nodes = [WorkerNode(number, pair.url, launcher) for number in range(_WORKERS)]
        resources.callback(_close, nodes)
        await asyncio.to_thread(eventually, lambda: all(node.ready for node in nodes), timeout=_PATIENCE)
        clients = WorkflowClients(engine, _operations(seed), lambda operation: None, Writers((), launcher), Trimmer())
        keeping = asyncio.create_task(clients.keep_in_flight(workflows))
        for _ in range(rounds):
            await asyncio.to_thread(_fail_over, pair, lag, losses)
        clients.finish()
        async with asyncio.timeout(_PATIENCE):
            await keeping
        await asyncio.to_thread(eventually, lambda: pair.primary.ask(_OPEN) == [(0,)], timeout=_PATIENCE)
        for node in nodes:
            await asyncio.to_thread(node.drain)
        await asyncio.to_thread(_judge, pair, clients, losses)
    return losses


def _close(nodes: Sequence[WorkerNode]) -> None:
    for node in nodes:
        node.process.close()


def _operations(seed: int) -> Iterator[Operation]:
    """Those that need no other client: what that does or writes would be lost as well."""
    return (
        operation
        for operation in operations(seed)
        if operation.cancel_after is None
        and operation.input is None
        and operation.topic is None
        and not operation.answers
        and operation.trims is None
    )


def _fail_over(pair: Pair, lag: float, losses: Losses) -> None:
    eventually(pair.in_step, timeout=_PATIENCE)
    pair.standby.stop("stop fast")
    before = _count(pair)
    eventually(lambda: _count(pair) > before, timeout=_PATIENCE)
    time.sleep(lag)  # in which work goes on that the standby never hears of
    acknowledged = _count(pair)
    pair.primary.kill()
    pair.standby.start()
    pair.promote()
    promoted = time.monotonic()
    kept = _count(pair)
    losses.lost_records.append(acknowledged - kept)
    eventually(lambda: _count(pair) > kept, timeout=_PATIENCE)
    losses.until_work.add(time.monotonic() - promoted)
    pair.join()


def _count(pair: Pair) -> int:
    ((count,),) = pair.primary.ask(_RECORDS)
    return int(count)


def _judge(pair: Pair, clients: WorkflowClients, losses: Losses) -> None:
    url = pair.url("looking")
    found = {history.workflow_id: history for history in histories(url)}
    for workflow_id, history in found.items():
        wanted = expected(history.row["name"], history.row["input"], history.records())
        wrong = [*check_end(history, wanted, may_be_cancelled=False), *check_streams(history, wanted)]
        losses.violations += [f"{workflow_id} ({history.row['name']}): {what}" for what in wrong]
    losses.violations += disorder(url)
    losses.violations += [f"a row of an epoch that its workflow never had: {row}" for row in rows(url, _UNKNOWN_EPOCHS)]
    losses.violations += check_leases(url)
    losses.acknowledged = len(clients.acknowledged)
    losses.forgotten = len(clients.acknowledged.keys() - found.keys())
    losses.ended = len(found)


_UNKNOWN_EPOCHS: Any = """
    SELECT w.id, w.epoch, r.epoch FROM dbosflow.workflow w JOIN (
        SELECT workflow_id, epoch FROM dbosflow.step UNION ALL SELECT workflow_id, epoch FROM dbosflow.stream_block
    ) AS r ON r.workflow_id = w.id
    WHERE r.epoch > w.epoch OR r.epoch < 0"""


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.lossy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="failovers (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the workflows (default: %(default)s)")
    options = parser.parse_args(arguments)
    logging.getLogger("dbosflow").setLevel(logging.CRITICAL)
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)
    pair = Pair(synchronous=False)
    os.environ[ledger.VARIABLE] = str(pair.root / "ledger")
    losses = asyncio.run(run(pair, options.rounds, seed=options.seed))
    print(losses)
    if losses.violations:
        print(f"the databases and all logs are in {pair.root}")
        return 1
    pair.discard()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
