"""The clients that are processes of their own: readers, and writers to inputs."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.chaos.nodes.processes import Launcher, Process


class ClientProcesses(ABC):
    """Those of one kind, each with an index and a route to the database."""

    def __init__(self, program: str, urls: Sequence[Callable[[str], str]], launcher: Launcher) -> None:
        self.names = [f"chaos-{program}-{index}" for index in range(len(urls))]
        """What their sessions are called."""
        self.levels: dict[int, dict[str, int]] = {}
        """What each of them message of itself last."""
        self._program = program
        self._urls = urls
        self._launcher = launcher
        self._loop = asyncio.get_running_loop()
        self._ready: set[int] = set()
        self.processes: list[Process] = []

    def start(self) -> None:
        """Starts all of them."""
        for index in range(len(self._urls)):
            self.processes.append(self._start(index))

    @property
    def ready(self) -> bool:
        """Whether all of them listen."""
        return len(self._ready) == len(self._urls)

    def end(self) -> None:
        """Ends them; they must leave in an orderly way, and nothing behind."""
        for process in self.processes:
            if not process.end():
                self._launcher.on_violation(f"a {self._program} did not end: see {process.log.name}")

    def close(self) -> None:
        """Makes sure that nothing is left of them."""
        for process in self.processes:
            process.close()

    @abstractmethod
    def received(self, index: int, message: dict[str, Any]) -> None:
        """Takes what one of them sent."""

    def _start(self, index: int) -> Process:
        name = self.names[index]
        return self._launcher.start(
            *(self._program, name, index, self._urls[index](name)),
            lambda message: self._loop.call_soon_threadsafe(self._on_message, index, message),
        )

    def _on_message(self, index: int, message: dict[str, Any]) -> None:
        if "ready" in message:
            self._ready.add(index)
        elif "level" in message:
            self.levels[index] = message["level"]
        elif "left" not in message:
            self.received(index, message)
        elif any(message["left"].values()):
            self._launcher.on_violation(f"a {self._program} left behind {message['left']}")
