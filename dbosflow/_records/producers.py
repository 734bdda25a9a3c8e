"""How the producers of stream values are named.

```text
producer = path                    a branch; the workflow's own has none
         | key "+dead"             a loop: its dead letters, which no replay writes again
         | key "@" epoch "." n     an attempt of a step, named as the record of its failure would be
         | key "@*"                a step: its values belong to all its attempts, and share one fate
         | "k:" idempotency key    outside writers, which write to inputs and to nothing else
         | "w:" unique id
```

A branch's name may look like an outside writer's: whether the stream is an input decides.

SQL cuts the names of attempts, too: see ``stream_block`` in ``schema.sql``. Compaction knows dead letters by their
ending: see ``compact`` in ``retention.sql``.
"""

from __future__ import annotations

import uuid

from dbosflow._records.keys import attempt_key

BODY = ""
"""The workflow's own branch."""
RESUMED = "*"
"""The attempt of values that belong to a step as a whole."""

_DEAD_LETTERS = "+dead"
_KEYED = "k:"
_UNIQUE = "w:"


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
    return f"{_UNIQUE}{uuid.uuid4()}"


def idempotency_key_of(producer: str) -> str:
    """The idempotency key of a producer that ``of_idempotency_key`` returned."""
    return producer.removeprefix(_KEYED)
