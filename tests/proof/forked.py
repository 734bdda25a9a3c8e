"""Processes that are forked from a sweep, which has imported everything already: a process costs what its work costs.

The sweep itself is of one thread and never opens an engine or keeps a connection, or a fork would inherit them.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import json
import logging
import os
import signal
import time
import traceback
from typing import TYPE_CHECKING, Any

from dbosflow import Engine
from dbosflow._runtime.execution import suspender
from tests.behaviour import ledger
from tests.proof.injection import Injection
from tests.proof.scenarios import QUEUE, SCENARIOS, SUSPENDING, Client
from tests.support import with_parameters

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.proof.injection import Trap

LIMIT = 30.0
"""Seconds in which a process must be over."""
SUSPEND_VARIABLE = "DBOSFLOW_TEST_SUSPEND"
"""Set: whatever waits leaves memory, in every scenario."""
SETTINGS: dict[str, Any] = {"grace": 2.0, "compact_every": None, "lease": 10.0}


class ForkedProcess:
    """A process that does ``work``; what it logs is appended to ``log``."""

    def __init__(self, log: Path, work: Callable[[], None]) -> None:
        self._log = log
        self.pid = os.fork()
        if self.pid == 0:
            _run_forked(log, work)

    def end(self, limit: float = LIMIT) -> int | None:
        """Waits for its end: its exit status, negative if a signal ended it; ``None`` if it had to be killed here."""
        deadline = time.monotonic() + limit
        while (found := os.waitpid(self.pid, os.WNOHANG)) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGUSR1)
                time.sleep(0.2)  # it prints its stacks
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                return None
            time.sleep(0.003)
        return os.waitstatus_to_exitcode(found[1])


def _run_forked(log: Path, work: Callable[[], None]) -> None:
    """The forked process: it ends here, whatever happens."""
    status = 1
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        faulthandler.register(signal.SIGUSR1, file=2, all_threads=True)
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
        work()
        status = 0
    except BaseException:  # noqa: BLE001 (it is in the log, and nothing of the sweep may run on in here)
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def scenario_process(url: str, directory: Path, scenario: str, run: str, trap: Trap | None) -> ForkedProcess:
    """A worker process that is also the client of one run; what it made durable is in the file ``points``."""

    def work() -> None:
        os.environ[ledger.VARIABLE] = str(directory / "ledger")
        Injection(directory / "points", trap).install()
        asyncio.run(_run_scenario(with_parameters(url, application_name="forked"), directory, scenario, run))

    return ForkedProcess(directory / "log", work)


async def _run_scenario(url: str, directory: Path, scenario: str, run: str) -> None:
    suspending = scenario in SUSPENDING or os.environ.get(SUSPEND_VARIABLE)
    suspender.REPLAYS = 0.0
    async with Engine(url, **SETTINGS, suspend_after=0.001 if suspending else 0) as engine:
        working = asyncio.get_running_loop().create_task(engine.run_worker_async(QUEUE, concurrency=2))
        client = Client(engine, run, lambda name, what: say(directory / name, what))
        await SCENARIOS[scenario](client)
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working


def say(path: Path, what: Any) -> None:
    """Appends a line of JSON that is there whole or not at all."""
    with path.open("a") as file:
        file.write(json.dumps(what) + "\n")


def said(path: Path) -> list[Any]:
    """The lines so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
