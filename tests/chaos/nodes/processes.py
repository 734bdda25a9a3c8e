"""Starts the programs of a chaos run as processes, each in a group of its own, to talk to in lines of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.chaos.nodes.libfaketime import clean_up_after

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping

_PATIENCE = 30.0
ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class ProgramConfig:
    """What a process is given besides an address: settings of its engine, variables of its environment."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Launcher:
    """Starts the processes of a run."""

    directory: Path
    """Where their logs are."""
    on_violation: Callable[[str], None]
    """Is called with what they do wrong."""
    config: Callable[[str, int], ProgramConfig] = lambda *_: ProgramConfig()
    """How the process of that name is configured, which has that index among those of its program."""
    levels_every: float | None = None
    """How often each of them tells its levels, in seconds."""

    def start(
        self,
        program: str,
        name: str,
        index: int,
        url: str,
        on_message: Callable[[Any], object],
        *,
        settings: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Process:
        """Starts a program, whose sessions and whose log carry the ``name``."""
        config = self.config(name, index)
        return Process(
            program,
            self.directory / f"{name}.log",
            on_message,
            config.environment,
            url=url,
            settings={**(settings or {}), **config.settings},
            levels_every=self.levels_every,
            **options,
        )


class Process:
    """A module of this package that runs by itself; ``on_message`` gets, on a thread, whatever it sends.

    ``environment`` are variables that it gets besides those of this process.
    """

    def __init__(
        self,
        name: str,
        log: Path,
        on_message: Callable[[Any], object],
        environment: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        self.log = log
        self._on_message = on_message
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"tests.chaos.programs.{name}", json.dumps(options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
                start_new_session=True,
            )
        self._listening = threading.Thread(target=self._listen, name=f"chaos-listens-{name}", daemon=True)
        self._listening.start()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status, once it has ended."""
        return self._process.poll()

    def tell(self, **message: Any) -> None:
        """Sends it a message, if it still listens."""
        assert self._process.stdin
        with suppress(BrokenPipeError):
            print(json.dumps(message), file=self._process.stdin, flush=True)

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal; to one that has ended, nothing."""
        self._process.send_signal(number)

    def wait(self, timeout: float) -> int | None:
        """Its exit status, or ``None`` if it has not ended by then."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> bool:
        """Ends its input; whether it has then ended in an orderly way."""
        assert self._process.stdin
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        if self.wait(_PATIENCE) != 0:
            return False
        self._listening.join()
        return True

    def close(self) -> None:
        """Makes sure that nothing is left of it."""
        self._process.kill()
        self._process.wait()
        clean_up_after(self._process.pid)
        self._listening.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            with suppress(BrokenPipeError):
                pipe.close()

    def _listen(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            with suppress(json.JSONDecodeError):  # half a line is what a kill leaves
                self._on_message(json.loads(line))
