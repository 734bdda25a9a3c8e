"""Reads the ledger of a run as it grows, and keeps what nobody has checked yet.

The file is renamed now and then, and a new one begins. Whoever had opened it before may still write its line into the
old one, at the latest when it was frozen meanwhile; so that is read on for a while, and then removed.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict, deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.behaviour import ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

ROTATED_BYTES = 4_000_000
_READ_ON = 60.0
"""Seconds after which nobody writes to a file any more that has another name by now."""


class Line(NamedTuple):
    """One line of the ledger: ``pass`` of a body, ``begin`` and ``end`` of a step body, and what others note."""

    what: str
    key: str | None
    attempt: str | None
    pid: int
    at: float


class _File:
    """A file of the ledger, as far as it was read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.renamed_at = 0.0
        self._read = 0

    def lines(self) -> list[list[Any]]:
        """Its new lines."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._read)
            found = file.read()
        found = found[: found.rfind(b"\n") + 1]
        self._read += len(found)
        return [json.loads(line) for line in found.splitlines()]

    @property
    def is_long(self) -> bool:
        """Whether it is time for a new one."""
        return self._read > ROTATED_BYTES


class LedgerReader:
    """The lines so far, by workflow. ``follow`` is told each of them, in the order they were written in a process."""

    def __init__(self, follow: Callable[[str, Line], None] | None = None) -> None:
        self._follow = follow
        self._path = Path(os.environ[ledger.VARIABLE])
        self._file = _File(self._path)
        self._renamed: deque[_File] = deque()
        self._count = 0
        self._lines: dict[str, list[Line]] = defaultdict(list)

    def read_on(self) -> None:
        """Reads what was written since."""
        for file in (*self._renamed, self._file):
            for what, pid, at in file.lines():
                kind, workflow_id, key, attempt = what
                line = Line(kind, key, attempt, pid, at)
                self._lines[workflow_id].append(line)
                if self._follow is not None:
                    self._follow(workflow_id, line)
        while self._renamed and time.monotonic() - self._renamed[0].renamed_at > _READ_ON:
            self._renamed.popleft().path.unlink()

    def rotate(self) -> None:
        """Begins a new file, if this one has become long."""
        if not self._file.is_long:
            return
        self._count += 1
        file = self._file
        file.path = self._path.rename(self._path.with_name(f"{self._path.name}-{self._count}"))
        file.renamed_at = time.monotonic()
        self._renamed.append(file)
        self._file = _File(self._path)

    def of(self, workflow_id: str) -> Sequence[Line]:
        """The lines of a workflow that were not forgotten."""
        return self._lines.get(workflow_id, ())

    def forget(self, workflow_id: str) -> None:
        """Nobody will ask for these any more."""
        self._lines.pop(workflow_id, None)

    def late(self, roots: Container[str]) -> list[tuple[str, Line]]:
        """What was written of these trees of workflows after they were forgotten; it is forgotten now, too."""
        late = [one for one in self._lines if one.partition("/")[0] in roots]
        return [(one, line) for one in late for line in self._lines.pop(one)]
