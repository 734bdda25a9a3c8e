"""The producers of stream values: a branch, or within a step one of the step's attempts."""

from __future__ import annotations

from dataclasses import dataclass

from dbosflow._records.keys import attempt_key


class Attempt:
    """One attempt of a step; its stream writes are named after it. Closed in memory before its record is written."""

    __slots__ = ("closed", "key", "name")

    def __init__(self, key: str, name: str) -> None:
        self.key = key
        self.name = name
        """``epoch.n``: two owners of a workflow never assign the same one."""
        self.closed = False

    @property
    def record_key(self) -> str:
        """The key of the record of the attempt's failure, and the name of the attempt's writes."""
        return attempt_key(self.key, self.name)


@dataclass(frozen=True, slots=True)
class Producer:
    """A producer of stream values: a branch, or within a step an attempt."""

    name: str
    """The branch's path; within a step, the step's key, ``@`` and the attempt."""
    label: str | None = None
    """The attempt whose failure rolls the values back: ``epoch.n``, or ``*`` for all; ``None`` if nothing does."""
    attempt: Attempt | None = None
    """The attempt that must be running."""
