"""The demo's two worker processes: plain ``dbosflow worker`` processes, started, killed and stopped by their pids."""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from dbosflow.cli.program import dbosflow_command
from dbosflow.config import DATABASE_URL_VARIABLE
from dbosflow.errors import DbosflowError

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator
    from typing import IO

    from dbosflow.cli.demo.stage import Stage

WORKFLOWS = "dbosflow.cli.demo.workflow"

_PATIENCE = 12.0
"""Seconds that a worker gets to stop: its grace, its last batch, and the release of its lease."""
_TAIL = 2000


class DemoError(DbosflowError):
    """The demo could not be run to its end."""


class Worker:
    """One worker process."""

    def __init__(self, process: Process, log: IO[bytes]) -> None:
        self._process = process
        self._log = log
        self._may_end = False

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def kill(self) -> None:
        """Sends SIGKILL, which the process cannot handle."""
        self._may_end = True
        with suppress(ProcessLookupError):
            self._process.kill()

    async def stop(self) -> None:
        """Sends SIGTERM, and SIGKILL if that does not help."""
        self._may_end = True
        if self._process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()

    async def fail_when_it_ends(self) -> None:
        """Never returns; raises an error when the process ends by itself."""
        code = await self._process.wait()
        if self._may_end:
            await asyncio.Event().wait()
        msg = f"worker process {self.pid} ended with status {code}{self._last_words()}"
        raise DemoError(msg)

    def _last_words(self) -> str:
        self._log.seek(0)
        text = self._log.read().decode(errors="replace").strip()
        return f"; its log ends with:\n{text[-_TAIL:]}" if text else ""


@asynccontextmanager
async def worker(stage: Stage, *queues: str, verbose: bool) -> AsyncIterator[Worker]:
    """A worker process that serves the given queues, and is ended with the block, however that ends."""
    # The log is shown on request; otherwise only if the process ends by itself.
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *_command(stage, queues),
            # Nothing is ever written to it. When this process ends, in whatever way, the input ends.
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=None if verbose else log,
            # Not on the command line, where every user could read the password.
            env={**os.environ, DATABASE_URL_VARIABLE: stage.url},
            # Ctrl-C reaches this process only, which stops its workers one after the other.
            start_new_session=True,
        )
        started = Worker(process, log)
        try:
            yield started
        finally:
            await started.stop()


def _command(stage: Stage, queues: tuple[str, ...]) -> list[str]:
    serving = [argument for queue in queues for argument in ("--queue", queue)]
    return [*dbosflow_command(), "worker", WORKFLOWS, *serving, "--schema", stage.schema, "--until-eof"]
