"""The kinds of record, and what each one tells a replay. The words are stored.

Of a record that newer code has written, an unknown kind is taken for an operation with an outcome: a replay that does
not ask for it is blocked, and nothing is passed over.
"""

from __future__ import annotations

from enum import StrEnum


class RecordKind(StrEnum):
    """What a record says."""

    # the outcome of an operation, under the operation's own key
    STEP = "step"
    """A step, or the handler of a loop's item, has a result or has failed for good."""
    SLEEP = "sleep"
    """A sleep has begun, and until when it goes."""
    CHILD = "child"
    """A child was started, or found."""
    RESULT = "result"
    """A workflow was waited for."""
    STATUS = "status"
    """A workflow's status was asked for."""
    INFO = "info"
    """A workflow's record was asked for."""
    CANCEL = "cancel"
    """A workflow's cancellation was asked for."""
    READ = "read"
    """A page of a stream was read."""
    FOR_EACH = "for_each"
    """A loop is over."""
    FLUSH = "flush"
    """All that was written before it is durable."""
    EMITTED = "emitted"
    """The workflow has looked at what it had written."""

    # what else is on record of an operation, under a key of its own
    ATTEMPT = "attempt"
    """An attempt of a step has failed."""
    WOKEN = "woken"
    """A sleep was over, in a run with branches."""
    GIVEN_UP = "given_up"
    """The program has cancelled an operation."""
    TIMEOUT = "timeout"
    """A durable timeout runs, and until when."""
    EXPIRED = "expired"
    """A durable timeout has expired."""

    # what the run has decided or noticed
    PATCHED = "patched"
    """``patched`` took new code."""
    REFUSED = "refused"
    """A stream took no more values of the body."""
    CHANGED = "changed"
    """A replay has written other values to a stream: one for each producer, by the first run that has found it."""


_NO_OPERATION = frozenset({RecordKind.PATCHED, RecordKind.REFUSED, RecordKind.CHANGED})
_SILENT = _NO_OPERATION | {RecordKind.ATTEMPT, RecordKind.TIMEOUT}


def is_delivered(kind: str) -> bool:
    """Whether a record of this kind delivers an outcome to the program, in a turn that a replay repeats."""
    return kind not in _SILENT


def shows_operation(kind: str) -> bool:
    """Whether a record of this kind shows that its branch has asked for an operation."""
    return kind not in _NO_OPERATION
