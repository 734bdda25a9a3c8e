"""Keeps worker processes running: ``dbosflow worker --processes N``, also as process 1 of a container.

```text
start ──► runs ──ends by itself──► pause ──► start          the pause grows with repeated failures
            │
            └── a signal to end: the worker gets SIGTERM and is awaited      a second signal: SIGKILL
```

Processes are started afresh, never forked. Each holds one end of a pipe and stops when the other end closes, so no
worker outlives its supervisor, even if that is killed. Other children of this process are reaped when they end: process
1 of a container inherits every orphan. A worker is never process 1, because reaping orphans would steal the exit
statuses of processes that the user's code has started.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dbosflow.cli.program import watch_eof
from dbosflow.cli.signals import on_end
from dbosflow.config import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

logger = logging.getLogger("dbosflow.cli")

HOPELESS = os.EX_CONFIG
"""A worker's exit status for errors that a restart cannot fix: a wrong module, URL or schema."""

_FIRST_PAUSE = 0.5
"""Seconds before a worker that ended is started again, doubled at each failure in a row."""
_LONGEST_PAUSE = 30.0
"""Seconds: a start that fails for hours does not fill a log, and one that works again is soon there."""
_SETTLED = 60.0
"""Seconds after which a worker's start counts as a success."""


@dataclass(frozen=True, slots=True)
class _Worker:
    """A worker process, and the number of its predecessors in a row that ended early."""

    process: subprocess.Popen[bytes]
    started_at: float
    failures: int


class Supervisor:
    """Runs ``count`` processes of one command; without ``restarts`` it ends when they do.

    With ``until_done`` one that ends by itself, and well, is done; the supervisor ends when all are.

    ``when_stopping`` is called as soon as the processes are to stop, before they are told.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        count: int,
        *,
        restarts: bool,
        until_done: bool = False,
        when_stopping: Callable[[], object] = lambda: None,
    ) -> None:
        self._command = command
        self._environment = environment
        self._count = count
        self._restarts = restarts
        self._until_done = until_done
        self.when_stopping = when_stopping
        self._workers: dict[int, _Worker] = {}
        self._pauses: set[asyncio.TimerHandle] = set()
        self._stopping = False
        self._status = 0
        self._over = asyncio.Event()
        self._input, self._lifeline = os.pipe()  # nothing is ever written to it

    def kill(self, pid: int) -> bool:
        """Kills a worker; another one starts soon, since this is no failure. Returns whether there is such a worker."""
        worker = self._workers.get(pid)
        if worker is None:
            return False
        self._workers[pid] = replace(worker, failures=-1)
        worker.process.kill()
        return True

    async def run(self, *, until_eof: bool) -> int:
        """Runs until all processes have ended for good; returns the exit status."""
        loop = asyncio.get_running_loop()
        on_end(self._on_signal)
        loop.add_signal_handler(signal.SIGCHLD, self._look)
        if until_eof:
            watch_eof(loop, self._on_eof)
        try:
            for _ in range(self._count):
                self._start(0)
            logger.info("worker processes: %s", ", ".join(map(str, self._workers)))
            await self._over.wait()
        finally:
            for worker in self._workers.values():
                worker.process.kill()
                worker.process.wait()
            os.close(self._input)
            os.close(self._lifeline)
        logger.info("all worker processes have ended")
        return self._status

    def _start(self, failures: int) -> None:
        try:
            process = subprocess.Popen(  # noqa: S603 (our own command line)
                self._command,
                stdin=self._input,
                env=self._environment,
                # Ctrl-C reaches this process only, which passes it on.
                start_new_session=True,
            )
        except OSError as error:  # no memory or no more processes, which may be temporary
            self._start_later(f"no worker process could be started ({error})", failures + 1)
            return
        self._workers[process.pid] = _Worker(process, time.monotonic(), failures)

    def _start_later(self, why: str, failures: int) -> None:
        seconds = pause(failures)
        logger.warning("%s; another one starts in %.1f s", why, seconds)

        def start() -> None:
            self._pauses.discard(handle)
            self._start(failures)

        handle = asyncio.get_running_loop().call_later(seconds, start)
        self._pauses.add(handle)

    def _look(self) -> None:
        """Handles ended children, which are workers of ours or orphans."""
        for pid, worker in tuple(self._workers.items()):
            status = worker.process.poll()
            if status is not None:
                del self._workers[pid]
                self._on_end(worker, status)
        self._reap_orphans()
        if self._stopping and not self._workers:
            self._over.set()

    def _reap_orphans(self) -> None:
        if not hasattr(os, "waitid"):
            return
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None or found.si_pid in self._workers:  # the worker has just ended: its SIGCHLD will follow
                return
            os.waitpid(found.si_pid, 0)

    def _on_end(self, worker: _Worker, status: int) -> None:
        pid = worker.process.pid
        cause = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        what = f"worker process {pid} {cause}"
        if self._stopping:
            if status not in {0, -signal.SIGTERM}:  # a SIGTERM can come while the worker starts
                logger.warning("%s; what it ran goes on elsewhere", what)
                self._status = self._status or 1
        elif status == 0 and self._until_done and self._restarts:
            if not self._workers and not self._pauses:
                self.stop(what)
        elif not self._restarts or (status == HOPELESS and not self._workers):
            self._status = 1 if status == HOPELESS else status if status >= 0 else 128 - status
            self.stop(what)
        else:
            settled = time.monotonic() - worker.started_at > _SETTLED
            self._start_later(what, 0 if settled else worker.failures + 1)

    def _on_signal(self, number: signal.Signals) -> None:
        if not self._stopping:
            self._status = 128 + number if number is signal.SIGINT else 0
            self.stop(number.name)
            return
        logger.warning("%s again: the workers are killed; their workflows go on elsewhere", number.name)
        self._status = 128 + number
        for worker in self._workers.values():
            worker.process.kill()

    def _on_eof(self) -> None:
        if not self._stopping:
            self.stop("the input has ended")

    def stop(self, why: str) -> None:
        """Has all processes end. Call it on the loop."""
        if self._stopping:
            return
        self._stopping = True
        self.when_stopping()
        for handle in self._pauses:
            handle.cancel()
        if self._workers:
            logger.info("%s: running steps get up to %g s to finish; once more quits at once", why, Settings().grace)
        for worker in self._workers.values():
            worker.process.terminate()
        if not self._workers:
            self._over.set()


def pause(failures: int) -> float:
    """Seconds before a start after so many failures in a row: exponential backoff with a limit and with jitter."""
    longest = min(_FIRST_PAUSE * 2.0 ** min(failures, 10), _LONGEST_PAUSE)
    return longest * random.uniform(0.5, 1)  # noqa: S311 (no secret)
