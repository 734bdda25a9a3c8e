"""Processes of their own, which a test talks to in lines of JSON, and may freeze or kill."""

from __future__ import annotations

import json
import os
import queue
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.processes import PATIENCE, ModuleProcess
from tests.support import eventually

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self


class Program(ModuleProcess):
    """A module of ``programs`` as a process. Left without a word it is killed, so that none outlives its test."""

    def __init__(self, name: str, log: Path, **options: Any) -> None:
        """Starts ``name`` with ``options``, which are JSON; what it logs is appended to ``log``."""
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        super().__init__(f"tests.behaviour.programs.{name}", log, options)

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.status is None

    def receive(self, timeout: float = PATIENCE) -> Any:
        """The next message from it."""
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            pytest.fail(f"process {self.pid} has said nothing for {timeout:g} s; its log:\n{self.log.read_text()}")
        if line is None:
            pytest.fail(f"process {self.pid} has ended; its log:\n{self.log.read_text()}")
        return json.loads(line)

    def ask(self, **message: Any) -> Any:
        """Sends it a message, and returns its answer."""
        self.send(**message)
        return self.receive()

    def logs(self, *parts: str, timeout: float = PATIENCE) -> str:
        """Waits for a line of its log that holds all ``parts``."""

        def line() -> str | None:
            lines = self.log.read_text(errors="replace").splitlines()
            return next((line for line in lines if all(part in line for part in parts)), None)

        return eventually(line, timeout=timeout) or ""

    def freeze(self) -> None:
        """Stops it (SIGSTOP), and waits until the kernel says that it has."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self) -> None:
        """Lets it go on (SIGCONT)."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Ends it without a chance to do anything about it (SIGKILL), and waits until it is gone."""
        self._process.kill()
        self._process.wait(PATIENCE)

    def leave(self) -> None:
        """Ends it in an orderly way: its input is over."""
        assert self._process.stdin
        self._process.stdin.close()
        assert self._process.wait(PATIENCE) == 0, self.log.read_text()

    def _on_line(self, line: str) -> None:
        self._lines.put(line)

    def _on_end(self) -> None:
        self._lines.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
