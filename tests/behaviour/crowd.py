"""A crowd that waits for messages, times and tokens, outlives every worker, and is answered by a client.

```text
python -m tests.behaviour.crowd --workflows 1000 --rounds 20
```

In each round all workflows are started and suspended; then every worker is killed (SIGKILL) at once. While no worker is
alive, or the new ones just begin, a client sends the messages and answers the tokens, some of them twice, under one
idempotency key. At the end each workflow has its own answers, in order, and has done its step. Prints a line for each
round; the exit status is 1 if anything differs.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbosflow import Engine
from tests.behaviour import ledger
from tests.behaviour.program import Program
from tests.behaviour.programs.crowd import by_message, by_time, by_token
from tests.behaviour.tables import disorder, rows
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

QUEUE = "crowd"
PATIENCE = 180.0
SENDERS = 8
SETTINGS = {"suspend_after": 0.05}


class Crowd:
    """One crowd on one database, for as many rounds as asked."""

    def __init__(self, url: str, directory: Path, *, workflows: int, workers: int = 2) -> None:
        self._url = url
        self._directory = directory
        self._workflows = workflows
        self._workers = workers
        self._programs = ExitStack()
        self._started = 0

    def run(self, rounds: int) -> list[str]:
        """Plays the rounds; what went wrong."""
        faults: list[str] = []
        with self._programs, Engine(self._url, executes=False) as client:
            workers = self._hired()
            for number in range(rounds):
                began = time.monotonic()
                workers = self._round(client, f"r{number}-", workers)
                faults += self._faults(client, f"r{number}-")
                print(f"round {number}: {time.monotonic() - began:.1f} s, {len(faults)} faults", flush=True)
        return faults

    def _hired(self) -> list[Program]:
        """New workers, which are still beginning."""
        return [self._worker() for _ in range(self._workers)]

    def _worker(self) -> Program:
        self._started += 1
        log = self._directory / f"worker-{self._started}.log"
        worker = Program(
            *("worker", log), url=self._url, module="crowd", queues=[QUEUE], settings=SETTINGS, concurrency=200
        )
        return self._programs.enter_context(worker)

    def _round(self, client: Engine, prefix: str, workers: list[Program]) -> list[Program]:
        for number in range(self._workflows):
            me = f"{prefix}{number}"
            flow, *rest = ((by_message,), (by_time, random.uniform(1.0, 6.0)), (by_token,))[number % 3]
            client.start(flow.options(workflow_id=me, queue=QUEUE), me, *rest)
        eventually(lambda: len(self._waiting_now(prefix)) >= 0.6 * self._workflows, timeout=PATIENCE)
        for worker in workers:
            worker.kill()
        workers = [] if random.random() < 0.5 else self._hired()
        waiting = self._waiting_now(prefix)
        early: list[int] = []
        late: list[int] = []
        for number in range(self._workflows):
            (early if number % 3 == 0 or f"{prefix}{number}" in waiting else late).append(number)
        with ThreadPoolExecutor(SENDERS) as senders:
            list(senders.map(lambda number: self._answer(client, prefix, number), early))
            workers = workers or self._hired()
            list(senders.map(lambda number: self._answer(client, prefix, number), late))
        eventually(lambda: len(self._with_status("succeeded", prefix)) == self._workflows, timeout=PATIENCE)
        return workers

    def _answer(self, client: Engine, prefix: str, number: int) -> None:
        me = f"{prefix}{number}"
        if number % 3 == 0:
            for topic in ("first", "second"):
                for _ in range(random.choice((1, 2))):
                    client.send(me, f"{topic} of {me}", topic=topic, idempotency_key=topic)
        elif number % 3 == 2:
            token = client.get_event(me, "token", timeout=PATIENCE)
            for _ in range(random.choice((1, 2))):
                client.resolve(token, f"token of {me}", idempotency_key="answer")

    def _waiting_now(self, prefix: str) -> set[str]:
        return self._with_status("waiting", prefix)

    def _with_status(self, status: str, prefix: str) -> set[str]:
        query = "SELECT id FROM dbosflow.workflow WHERE status = %s AND starts_with(id, %s)"
        return {found for (found,) in rows(self._url, query, status, prefix)}

    def _faults(self, client: Engine, prefix: str) -> list[str]:
        faults = list(disorder(self._url))
        done: dict[Any, int] = {}
        for what in ledger.noted():
            done[what] = done.get(what, 0) + 1
        for number in range(self._workflows):
            me = f"{prefix}{number}"
            expected = (f"{me}: first of {me} second of {me}", f"{me}: slept", f"{me}: token of {me}")[number % 3]
            found = client.handle(me).result(timeout=PATIENCE)
            if found != expected:
                faults.append(f"{me} gave {found!r}")
            if not done.get(expected):
                faults.append(f"{me} has not done its step")
        left = rows(self._url, "SELECT count(*) FROM dbosflow.waiter")
        return faults if left == [(0,)] else [*faults, f"rows of waiters that are left: {left}"]


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.behaviour.crowd", description=__doc__)
    parser.add_argument("--workflows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None, help="repeats the choices of another run")
    parser.add_argument("--database-url", help="an empty database; default: an embedded server of its own")
    options = parser.parse_args(arguments)
    seed = random.randrange(10**6) if options.seed is None else options.seed
    random.seed(seed)
    with tempfile.TemporaryDirectory() as directory, ExitStack() as resources:
        os.environ[ledger.VARIABLE] = str(Path(directory) / "ledger")
        url = options.database_url or resources.enter_context(Engine.ephemeral(executes=False)).database_url
        faults = Crowd(url, Path(directory), workflows=options.workflows).run(options.rounds)
        for log in sorted(Path(directory).glob("*.log")) if faults else ():
            print(f"-- {log.name}\n{log.read_text()[-4000:]}", file=sys.stderr)
    print(f"seed {seed}\n" + ("\n".join(faults) or "no fault"))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
