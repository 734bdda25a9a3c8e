"""The result of one check."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """The severity of a finding."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"

    @property
    def rank(self) -> int:
        """A number that is higher for worse verdicts."""
        return list(Verdict).index(self)


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check: what was found, what to do about it, and the facts behind it."""

    check: str
    verdict: Verdict
    found: str
    advice: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


Complaint = tuple[Verdict, str, str]
"""A problem: how severe it is, what it is, and what to do."""


def judged(check: str, complaints: list[Complaint], fine: str, facts: dict[str, Any]) -> Finding:
    """The finding of a check that may have several complaints; ``fine`` is its text if there are none."""
    if not complaints:
        return Finding(check, Verdict.OK, fine, None, facts)
    worst = max((verdict for verdict, _, _ in complaints), key=lambda verdict: verdict.rank)
    found = "; ".join(what for _, what, _ in complaints)
    advice = "; ".join(dict.fromkeys(advice for _, _, advice in complaints))
    return Finding(check, worst, found, advice, facts)
