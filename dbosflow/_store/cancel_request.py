"""Why a workflow is to end, as its row says: a cancellation with a reason, or a deadline that has passed."""

from __future__ import annotations

import json
from typing import NamedTuple


class CancelRequest(NamedTuple):
    """A request to end a workflow."""

    reason: str | None = None
    """The words of the caller that requested the cancellation."""
    timed_out: bool = False
    """Whether it is the workflow's deadline that ends it: then it ends as failed."""

    @classmethod
    def of(cls, text: str | None) -> CancelRequest | None:
        """The request in the JSON of a statement; ``None`` if there is none."""
        if text is None:
            return None
        reason, timed_out = json.loads(text)
        return cls(reason, bool(timed_out))


CANCELLED = CancelRequest()
"""A cancellation without a reason."""
