"""The kinds of record, and what each one means for a replay. The words are stored.

A record of an unknown kind, written by newer code, counts as an operation with an outcome: a replay that does not ask
for that operation is blocked, and nothing is skipped.
"""

from __future__ import annotations

from enum import StrEnum


class RecordKind(StrEnum):
    """What a record states."""

    # the outcome of an operation, under the operation's own key
    STEP = "step"
    """A step, or the handler of a loop's item, has a result or has failed for good."""
    TRANSACTION = "transaction"
    """The same of a transaction: a result is on record if and only if its rows are committed."""
    SLEEP = "sleep"
    """A sleep has begun; the record holds its end."""
    CHILD = "child"
    """A child was started, or found."""
    RESULT = "result"
    """A workflow's outcome was waited for."""
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
    MAP = "map"
    """Workflows were run for all items of a list."""
    FIRST = "first"
    """Of several workflows, these ended first."""
    FLUSH = "flush"
    """All that was written before it is durable."""
    EMITTED = "emitted"
    """The workflow has read what it had written."""
    SEND = "send"
    """A message was sent, or refused."""
    RECV = "recv"
    """A message was received; the record holds it."""
    TOKEN = "token"  # noqa: S105 (a kind of record)
    """A token was created; the record holds its secret."""
    ATTRIBUTES = "attributes"
    """Attributes of the workflow were set or removed, by the statement that wrote the record."""
    USE = "use"
    """Units that were really used have counted."""
    ANSWER = "answer"
    """The answer to a token was waited for."""

    # other facts about an operation, under keys of their own
    ATTEMPT = "attempt"
    """An attempt of a step has failed."""
    WOKEN = "woken"
    """A sleep was over, in a run with branches."""
    GIVEN_UP = "given_up"
    """The program has cancelled an operation."""
    TIMEOUT = "timeout"
    """A durable timeout was started; the record holds its deadline."""
    EXPIRED = "expired"
    """A durable timeout has expired."""
    UNTIL = "until"
    """An operation waits until a deadline, which the record holds."""
    DRAWN = "drawn"
    """The body has drawn a value: the time, an id, a random number or a seed."""

    MAPPED = "mapped"
    """A child was started, or found, for an item of a list."""
    MAPPED_RESULT = "mapped_result"
    """The outcome of such a child."""

    # what the run has decided or found
    PATCHED = "patched"
    """``patched`` took new code."""
    REFUSED = "refused"
    """A stream refused further values of the body."""
    CHANGED = "changed"
    """A replay has written other values to a stream; at most one record a producer, by the first run that finds it."""
    CANCELLED = "cancelled"
    """A request to end the workflow was delivered to its body."""
    COMPENSATING = "compensating"
    """The body was over and its compensations began; the record holds their deadline."""
    CONTINUED = "continued"
    """The workflow was continued as new; the record holds what the iteration before has handed on."""


STEPS = frozenset({RecordKind.STEP, RecordKind.TRANSACTION})
"""The outcomes of steps: each stands for the other, since a step may become a transaction between two passes."""
_NO_OPERATION = frozenset(
    {RecordKind.PATCHED, RecordKind.REFUSED, RecordKind.CHANGED, RecordKind.COMPENSATING, RecordKind.CONTINUED}
)
_SILENT = _NO_OPERATION | {
    RecordKind.ATTEMPT,
    RecordKind.TIMEOUT,
    RecordKind.UNTIL,
    RecordKind.DRAWN,
    RecordKind.MAPPED,
    RecordKind.MAPPED_RESULT,
}


def is_delivered(kind: str) -> bool:
    """Whether a record of this kind delivers an outcome to the program, in a turn that a replay repeats."""
    return kind not in _SILENT


def shows_operation(kind: str) -> bool:
    """Whether a record of this kind shows that its branch asked for an operation."""
    return kind not in _NO_OPERATION and kind != RecordKind.CANCELLED
