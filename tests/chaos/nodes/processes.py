"""Starts the programs of a chaos run as processes, each in a group of its own, to talk to in lines of JSON."""

from __future__ import annotations

import json
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.chaos.nodes.libfaketime import clean_up_after
from tests.processes import PATIENCE, ModuleProcess

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping
    from pathlib import Path


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


class Process(ModuleProcess):
    """A module of ``programs`` as a process; ``on_message`` gets, on a thread, whatever it sends.

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
        self._on_message = on_message
        super().__init__(f"tests.chaos.programs.{name}", log, options, environment=environment, own_group=True)

    def send_signal(self, number: signal.Signals) -> None:
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
        if self.wait(PATIENCE) != 0:
            return False
        self._listening.join()
        return True

    def close(self) -> None:
        """Makes sure that nothing is left of it."""
        super().close()
        clean_up_after(self.pid)

    def _on_line(self, line: str) -> None:
        with suppress(json.JSONDecodeError):  # half a line is what a kill leaves
            self._on_message(json.loads(line))
