"""Who writes to a stream: a branch, or within a step one of its attempts."""

from __future__ import annotations

from dataclasses import dataclass

from dbosflow._records.keys import attempt_key


class Attempt:
    """One attempt of a step: what its stream writes are named after. Closed in memory before it ends in the records."""

    __slots__ = ("closed", "key", "name")

    def __init__(self, key: str, name: str) -> None:
        self.key = key
        self.name = name
        """``epoch.n``: no two owners of a workflow can give the same one."""
        self.closed = False

    @property
    def record_key(self) -> str:
        """The key of the record of its failure, and the name of its writes."""
        return attempt_key(self.key, self.name)


@dataclass(frozen=True, slots=True)
class Producer:
    """Who writes to a stream: a branch, or within a step an attempt."""

    name: str
    """The branch's path; of a step its key, ``@`` and the attempt."""
    label: str | None = None
    """The attempt whose failure rolls its values back: ``epoch.n``, or ``*`` for all; ``None`` if nothing does."""
    attempt: Attempt | None = None
    """The attempt that must be under way."""
