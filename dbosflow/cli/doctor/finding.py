"""What one check found."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"

    @property
    def rank(self) -> int:
        """The worse, the higher."""
        return list(Verdict).index(self)


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was found, what to do about it if anything, and the numbers behind it."""

    check: str
    verdict: Verdict
    found: str
    advice: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


Complaint = tuple[Verdict, str, str]
"""One thing that is wrong: how bad, what, and what to do."""


def judged(check: str, complaints: list[Complaint], fine: str, facts: dict[str, Any]) -> Finding:
    """The finding of a check that may complain of several things; ``fine`` if of nothing."""
    if not complaints:
        return Finding(check, Verdict.OK, fine, None, facts)
    worst = max((verdict for verdict, _, _ in complaints), key=lambda verdict: verdict.rank)
    found = "; ".join(what for _, what, _ in complaints)
    advice = "; ".join(dict.fromkeys(advice for _, _, advice in complaints))
    return Finding(check, worst, found, advice, facts)
