"""A measurement of two processes: this one, and another that is connected to it by a pipe."""

from __future__ import annotations

import multiprocessing
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dbosflow.cli.worker import collect_seldom

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

_PATIENCE = 30.0


class Half:
    """The other process."""

    def __init__(self, process: SpawnProcess, pipe: Connection) -> None:
        self.process = process
        self._pipe = pipe

    def send(self, what: object) -> None:
        """Sends it ``what``."""
        self._pipe.send(what)

    def receive(self) -> Any:
        """The next message from it; ``EOFError`` if it has ended."""
        return self._pipe.recv()

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self.process.kill()
        self.process.join()


def _run(target: Callable[..., None], *args: object) -> None:
    collect_seldom()
    target(*args)


@contextmanager
def half(target: Callable[..., None], *args: object) -> Iterator[Half]:
    """Runs ``target(pipe, *args)`` in a process of its own, a fresh interpreter; it is gone after the block."""
    there, here = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(target, there, *args))
    process.start()
    there.close()  # so that its end is noticed
    try:
        yield Half(process, here)
        process.join(_PATIENCE)
    finally:
        if process.is_alive():
            process.kill()
            process.join()
