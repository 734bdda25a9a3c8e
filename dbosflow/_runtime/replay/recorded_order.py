"""The operations that each branch has on record, in the order in which a replay must ask for them.

A branch is one thread of control, so its operations have one order: that of their first records. A replay follows this
order. A branch that asks for an operation takes the first one left on its list. If that is another operation, code and
records disagree, before anything has run. Only a branch with an empty list does something new.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from dbosflow._records.keys import GIVEN_UP, UNTIL, WOKEN, operation_of, path_of
from dbosflow._records.kinds import shows_operation

if TYPE_CHECKING:
    from dbosflow._store.step import History, Recorded


class RecordedOrder:
    """The recorded operations of a run that have not been asked for yet, by branch."""

    __slots__ = ("_ahead", "_history", "left")

    def __init__(self, history: History) -> None:
        ahead: dict[str, dict[str, None]] = {}
        for record in sorted(history.records.values(), key=lambda record: record.seq):
            if shows_operation(record.kind):
                key = operation_of(record.key, record.kind)
                ahead.setdefault(path_of(key), {})[key] = None
        for key in history.loops:  # of a loop that is not over, only the items are on record
            ahead.setdefault(path_of(key), {}).setdefault(key)
        self._history = history
        self._ahead = {path: deque(keys) for path, keys in ahead.items()}
        self.left = sum(map(len, self._ahead.values()))
        """The number of operations left."""

    def ask(self, path: str, key: str) -> str | None:
        """Takes the operation that the branch asks for off its list, or returns what is next there instead."""
        ahead = self._ahead.get(path)
        if not ahead:
            return None
        if ahead[0] != key:
            return ahead[0]
        ahead.popleft()
        self.left -= 1
        return None

    def next_of(self, path: str) -> str | None:
        """The next operation that the branch has on record."""
        ahead = self._ahead.get(path)
        return ahead[0] if ahead else None

    @property
    def first_left(self) -> str | None:
        """An operation that no branch has asked for yet."""
        return next((keys[0] for keys in self._ahead.values() if keys), None)

    def record_of(self, key: str) -> Recorded | None:
        """The first record of an operation; a loop that is not over has none."""
        records = self._history.records
        attempts = self._history.failures.get(key)
        if attempts:
            return attempts[0]
        return next((records[key + one] for one in ("", GIVEN_UP, WOKEN, UNTIL) if key + one in records), None)
