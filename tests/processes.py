"""A module that runs as a process of its own, which a test talks to in lines of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parent.parent
PATIENCE = 60.0


class ModuleProcess(ABC):
    """Runs ``module`` with ``options``, which are JSON; what it logs is appended to ``log``.

    ``environment`` are variables that it gets besides those of this process. Each line that it writes goes to
    ``_on_line``, on a thread, which begins before this has returned.
    """

    def __init__(
        self,
        module: str,
        log: Path,
        options: Mapping[str, Any],
        *,
        environment: Mapping[str, str] | None = None,
        own_group: bool = False,
    ) -> None:
        self.log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, json.dumps(options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
                start_new_session=own_group,
            )
        name = f"chaos-listens-{module}"  # by which the counts of threads leave it out
        self._listening = threading.Thread(target=self._listen, name=name, daemon=True)
        self._listening.start()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status, once it has ended."""
        return self._process.poll()

    def send(self, **message: Any) -> None:
        """Sends it a message, if it still listens."""
        assert self._process.stdin
        with suppress(BrokenPipeError):
            print(json.dumps(message), file=self._process.stdin, flush=True)

    def close(self) -> None:
        """Makes sure that nothing is left of it."""
        self._process.kill()
        self._process.wait(PATIENCE)
        self._listening.join(PATIENCE)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            with suppress(BrokenPipeError):  # what was sent last was not read any more
                pipe.close()

    @abstractmethod
    def _on_line(self, line: str) -> None:
        """It has written a line."""

    def _on_end(self) -> None:  # noqa: B027 (a reader of lines needs no end)
        """It writes no more."""

    def _listen(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._on_line(line)
        self._on_end()
