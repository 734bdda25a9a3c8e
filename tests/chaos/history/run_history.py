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
class AnswerHistory:
    """What those who answer one workflow, and ask it, were told."""

    answers: dict[int, str] = field(default_factory=dict)
    """The answer to each token that counts."""
    replies: dict[int, int] = field(default_factory=dict)
    """The reply to each request."""
    violations: list[str] = field(default_factory=list)

    def counts(self, number: int, answer: str) -> None:
        """An answer to a token was acknowledged: no other one is."""
        if self.answers.setdefault(number, answer) != answer:
            self.violations.append(f"token {number}: {self.answers[number]!r} was acknowledged, and {answer!r}, too")

    def replied(self, number: int, reply: int) -> None:
        """A request got its reply."""
        self.replies[number] = reply


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
    answered: Mapping[str, AnswerHistory] = field(default_factory=dict)
