"""A sample of the situations of ``python -m tests.hostile``: those in which most was broken, and what is refused."""

from __future__ import annotations

import pytest

from tests.hostile.situations import SITUATIONS, Situation
from tests.hostile.trial import tried

WORDS = ("at once", "variables", "LATIN1", "de-u-co-phonebk")
SAMPLE = [one for one in SITUATIONS if any(word in one.name for word in WORDS)]


@pytest.mark.parametrize("situation", SAMPLE, ids=lambda one: one.name)
def test_everything_works_or_is_refused_in_words(admin_url: str, situation: Situation) -> None:
    """The same comes out as in a database that nobody has touched."""
    why_not = tried(admin_url, situation)
    assert why_not is None or "icu" in situation.made  # which older servers do not have
