"""One run of the bank: starts workflows, keeps two workers alive until all have ended, and checks the books."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString

import psycopg

from dbosflow import Engine
from tests.bank.worker import QUEUE
from tests.bank.workflows import ACCOUNTS, LEVELS, WORKFLOWS
from tests.behaviour.tables import disorder

if TYPE_CHECKING:
    import random

__all__ = ["LEVELS", "Report", "Run"]

PATIENCE = 120.0
WORKERS = 2
ROOT = Path(__file__).parents[2]

_BOOKS: dict[str, LiteralString] = {
    "the sum is another one": "SELECT sum(balance) FROM account HAVING sum(balance) <> 0",
    "a transfer was made twice": "SELECT id, number, count(*) FROM transfer GROUP BY 1, 2 HAVING count(*) > 1",
    "a transfer without a record, or a record without a transfer": """
        SELECT t.id, t.number, s.workflow_id, s.key FROM transfer t
        FULL JOIN (SELECT * FROM dbosflow.step WHERE kind = 'transaction' AND error IS NULL) AS s
             ON s.workflow_id = t.id AND s.key = 'transfer#' || t.number
        WHERE t.id IS NULL OR s.workflow_id IS NULL""",
    "a workflow that did not succeed": "SELECT id, status, error FROM dbosflow.workflow WHERE status <> 'succeeded'",
    "an open transaction": """
        SELECT query FROM pg_stat_activity
        WHERE datname = current_database() AND state LIKE 'idle in transaction%' AND pid <> pg_backend_pid()""",
}


@dataclass
class Report:
    """What happened, and what is wrong."""

    seconds: float = 0.0
    transfers: int = 0
    hows: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        done = ", ".join(f"{count} x {how}" for how, count in sorted(self.hows.items()))
        said = "\n".join(self.wrong) or "all is well"
        return f"{self.transfers} transfers in {self.seconds:.1f} s, gone wrong: {done or 'nothing'}; {said}"


class Run:
    """One run, in a database that other runs may have used."""

    def __init__(self, url: str, name: str, isolation: str, chance: random.Random, deadly: float) -> None:
        self._url, self._name, self._isolation = url, name, isolation
        self._chance, self._deadly = chance, deadly
        self._processes: list[subprocess.Popen[str]] = []

    def run(self, workflows: int, transfers: int) -> Report:
        """Runs so many workflows with so many transfers each."""
        report, began = Report(), time.monotonic()
        with Engine(self._url, executes=False) as client, tempfile.TemporaryFile("w+") as said:
            self._open_accounts()
            handles = [
                client.start(
                    WORKFLOWS[self._isolation][number % 2].options(workflow_id=f"{self._name}-{number}", queue=QUEUE),
                    transfers,
                    number,
                )
                for number in range(workflows)
            ]
            try:
                while any(not handle.status().ended for handle in handles):
                    if time.monotonic() - began > PATIENCE:
                        report.wrong.append("the workflows have not ended in time")
                        break
                    self._keep_alive(said)
                    time.sleep(0.1)
            finally:
                self._stop()
            said.seek(0)
            lines = said.read().splitlines()
        report.hows = Counter(lines)
        report.wrong += self._check()
        report.seconds, report.transfers = time.monotonic() - began, workflows * transfers
        return report

    def _open_accounts(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute("DROP TABLE IF EXISTS account, transfer")
            connection.execute("CREATE TABLE account (id integer PRIMARY KEY, balance integer NOT NULL)")
            connection.execute("INSERT INTO account SELECT id, 0 FROM generate_series(0, %s) AS id", (ACCOUNTS - 1,))
            connection.execute("CREATE TABLE transfer (id text NOT NULL, number integer NOT NULL)")
            connection.execute("TRUNCATE dbosflow.workflow, dbosflow.step, dbosflow.stream_block, dbosflow.worker")

    def _keep_alive(self, said: object) -> None:
        self._processes = [one for one in self._processes if one.poll() is None]
        while len(self._processes) < WORKERS:
            seed = str(self._chance.randrange(1 << 32))
            command = [sys.executable, "-m", "tests.bank.worker", self._url, seed, str(self._deadly)]
            self._processes.append(
                subprocess.Popen(command, stdout=said, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)  # type: ignore[call-overload]
            )

    def _stop(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()

    def _check(self) -> list[str]:
        deadline = time.monotonic() + 10
        while True:  # the server notices the end of a client a little later
            with psycopg.connect(self._url, autocommit=True, application_name="looking") as connection:
                found = [
                    f"{what}: {row}" for what, query in _BOOKS.items() for row in connection.execute(query).fetchall()
                ]
            if not found or time.monotonic() > deadline:
                return [*found, *disorder(self._url)]
            time.sleep(0.1)
