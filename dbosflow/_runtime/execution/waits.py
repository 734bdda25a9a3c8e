"""Which workflows of one engine wait for which. A wait that would close a circle never ends, and is refused.

Workflows in other processes, or in other engines of this one, are not seen before they are suspended: a circle of
workflows that all wait in the tables is found there, and one of them is woken, which looks at the tables again.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from dbosflow.errors import DeadlockError

if TYPE_CHECKING:
    from types import TracebackType


class Waits:
    """The waits of one engine's workflows. Branches of one workflow may wait for several others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._awaited: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return len(self._awaited)

    def begin(self, waiter: str, awaited: str) -> None:
        """Notes that ``waiter`` waits for the end of ``awaited``.

        Raises:
            DeadlockError: ``awaited`` waits for ``waiter``, by itself or through others.
        """
        with self._lock:
            circle = self._way(awaited, waiter)
            if not circle:
                self._awaited.setdefault(waiter, []).append(awaited)
                return
        raise deadlock(waiter, circle)

    def end(self, waiter: str, awaited: str) -> None:
        """Notes that ``waiter`` waits for ``awaited`` no more."""
        with self._lock:
            others = self._awaited[waiter]
            others.remove(awaited)
            if not others:
                del self._awaited[waiter]

    def _way(self, start: str, to: str) -> list[str]:
        """The shortest path of waits; mostly the awaited workflow waits for nothing."""
        came_from: dict[str, str | None] = {start: None}
        front = [start]
        for one in front:
            if one == to:
                way: list[str] = []
                at: str | None = one
                while at is not None:
                    way.append(at)
                    at = came_from[at]
                return way[::-1]
            for other in self._awaited.get(one, ()):
                if other not in came_from:
                    came_from[other] = one
                    front.append(other)
        return []


def deadlock(waiter: str, circle: list[str]) -> DeadlockError:
    """The error of a workflow that would wait for the first of these, of which the last is itself."""
    if len(circle) == 1:
        msg = f"workflow {waiter!r} waits for its own result, which comes with its end: it would wait for ever"
    else:
        way = " waits for ".join(map(repr, circle))
        msg = f"workflow {waiter!r} would wait for {circle[0]!r} for ever, since {way}: return, or wait elsewhere"
    return DeadlockError(waiter, msg)


class Waiting:
    """Notes that one workflow waits for another during the block."""

    __slots__ = ("_awaited", "_waiter", "_waits")

    def __init__(self, waits: Waits, waiter: str, awaited: str) -> None:
        self._waits, self._waiter, self._awaited = waits, waiter, awaited

    def __enter__(self) -> None:
        self._waits.begin(self._waiter, self._awaited)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._waits.end(self._waiter, self._awaited)
