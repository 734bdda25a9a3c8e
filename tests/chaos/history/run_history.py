"""The history of a run: what clients did to workflows and were answered, and which processes the nemesis froze."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from tests.chaos.nodes.workers import Frozen


@dataclass
class WriteHistory:
    """What writers were answered to their writes to one input."""

    offsets: dict[str, int] = field(default_factory=dict)
    """Where each value is that was acknowledged."""
    refused: set[str] = field(default_factory=set)
    violations: list[str] = field(default_factory=list)

    def add(self, answers: Sequence[Sequence[Any]]) -> None:
        """What a writer was answered: for each value its offset, or ``None`` if it was refused."""
        for value, offset in answers:
            if offset is None:
                self.refused.add(value)
            elif self.offsets.setdefault(value, offset) != offset:
                self.violations.append(f"{value!r} was acknowledged at {self.offsets[value]}, then at {offset}")


@dataclass
class TrimHistory:
    """What is known of the trims of one stream."""

    key: str
    first: int = 0
    """What stands at the beginning at least: the latest answer."""
    asked: int = 0
    """The furthest that anybody asked for."""


@dataclass(frozen=True)
class RunHistory:
    """What clients asked for and were answered, and whom the nemesis froze."""

    cancelled: Collection[str] = ()
    """The workflows whose cancel a client requested."""
    frozen: Iterable[Frozen] = ()
    written: Mapping[str, WriteHistory] = field(default_factory=dict)
    trimmed: Mapping[str, TrimHistory] = field(default_factory=dict)
