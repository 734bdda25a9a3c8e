"""How many ran at once: bodies write down when they began and ended, in a file that all workers of a host share.

A limit over all workers is measured by two of them. What is counted is bodies, whatever the tables say.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.halves import half

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.job import Figures

KEYS = 4
"""Partitions, where they are limited."""
_SECONDS = 0.05


class Diary:
    """Where the bodies of this process write, once ``keep`` has said so."""

    def __init__(self) -> None:
        self._path: Path | None = None

    def keep(self, path: str) -> None:
        """From now on, in this file."""
        self._path = Path(path)

    async def busy(self, key: str) -> None:
        """A body that takes a while, and writes down when that was."""
        assert self._path is not None
        began = time.monotonic()
        await asyncio.sleep(_SECONDS)
        with self._path.open("a", encoding="ascii") as file:  # one short write: lines of others stay whole
            file.write(f"{key} {began} {time.monotonic()}\n")


diary = Diary()


@contextmanager
def two_workers(work: Callable[..., None], *args: object) -> Iterator[Callable[[], Figures]]:
    """Runs ``work(pipe, *args, path)`` in two processes, which are ready when the block begins.

    The block gets a function that says what was most at a moment, as ``most_at_once`` does.
    """
    with tempfile.NamedTemporaryFile(prefix="at-once-") as file, ExitStack() as halves:
        workers = [halves.enter_context(half(work, *args, file.name)) for _ in range(2)]
        for worker in workers:
            worker.receive()
        yield lambda: most_at_once(Path(file.name))
        for worker in workers:
            worker.kill()


def most_at_once(path: Path) -> Figures:
    """The most bodies that ran at a moment (``all``), and the most of those with one key (``key``)."""
    spans = defaultdict(list)
    for line in path.read_text("ascii").splitlines():
        key, began, ended = line.split()
        spans[key].append((float(began), float(ended)))
    everything = [span for of_key in spans.values() for span in of_key]
    return {"all": _most(everything), "key": max(_most(of_key) for of_key in spans.values())}


def _most(spans: Sequence[tuple[float, float]]) -> float:
    changes = sorted([(began, 1) for began, _ in spans] + [(ended, -1) for _, ended in spans])
    return float(max(accumulate(change for _, change in changes)))
