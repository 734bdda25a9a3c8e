"""How the producers of stream values are named.

```text
producer = path                    a branch; the workflow's own has none
         | key "+dead"             a loop: its dead letters, which no replay writes again
         | key "@" epoch "." n     an attempt of a step, named as the record of its failure would be
         | key "@*"                a step: its values belong to all its attempts, and share one fate
         | "k:" idempotency key    outside writers, which write to inputs and to nothing else
         | "w:" unique id                one write of somebody who has no key; it begins with the time
         | "s:" key "+" id         a workflow that sends a message at a key of its own: the id is that of the sender
```

A branch's name may look like an outside writer's: whether the stream is an input decides.

SQL cuts the names of attempts, too: see ``stream_block`` in ``schema.sql``. Compaction knows dead letters by their
ending: see ``compact`` in ``retention.sql``.
"""

from __future__ import annotations

from dbosflow._records.ids import age_of, new_id
from dbosflow._records.keys import attempt_key

BODY = ""
"""The workflow's own branch."""
RESUMED = "*"
"""The attempt of values that belong to a step as a whole."""

_DEAD_LETTERS = "+dead"
_KEYED = "k:"
_UNIQUE = "w:"
_SENDER = "s:"

SURE = 12 * 3600.0
"""Seconds for which a unique outsider tries to write. What it has written is known for a day: see ``trim`` in
``retention.sql``."""


def of_all_attempts(step_key: str) -> str:
    """The producer of the values that all attempts of a step share."""
    return attempt_key(step_key, RESUMED)


def of_dead_letters(loop_key: str) -> str:
    """The producer of a loop's dead letters: no branch has its name, since ``+`` stands in no path."""
    return f"{loop_key}{_DEAD_LETTERS}"


def is_of_step(producer: str) -> bool:
    """Whether one of the workflow's producers is a step or an attempt of one: paths of branches contain no ``@``."""
    return "@" in producer


def is_resumed(producer: str) -> bool:
    """Whether the producer stands for all attempts of its step."""
    return producer.endswith(f"@{RESUMED}")


def of_idempotency_key(idempotency_key: str) -> str:
    """The producer of an outside writer that may write the same value again."""
    return f"{_KEYED}{idempotency_key}"


def unique_outsider() -> str:
    """The producer of an outside writer that writes one block and never returns."""
    return f"{_UNIQUE}{new_id()}"


def is_unsure(producer: str) -> bool:
    """Whether a unique outsider has tried for so long that it gives up."""
    return producer.startswith(_UNIQUE) and age_of(producer.removeprefix(_UNIQUE)) > SURE


def of_sender(workflow_id: str, key: str) -> str:
    """The producer of the message that a workflow sends at a key, however often it is sent.

    No key of an operation has a ``+`` in it, so two senders never share a producer, whatever their ids are.
    """
    return f"{_SENDER}{key}+{workflow_id}"


def sent_key(step_key: str, count: int) -> str:
    """The key of the message ``count`` that a step sends, the same in all its attempts."""
    return f"{step_key}/{count}"


def outsider_of(producer: str) -> str:
    """An outside writer in words."""
    if producer.startswith(_SENDER):
        key, _, workflow_id = producer.removeprefix(_SENDER).partition("+")
        return f"key {key!r} of workflow {workflow_id!r}"
    return f"idempotency key {idempotency_key_of(producer)!r}"


def idempotency_key_of(producer: str) -> str:
    """The idempotency key of a producer that ``of_idempotency_key`` returned."""
    return producer.removeprefix(_KEYED)
