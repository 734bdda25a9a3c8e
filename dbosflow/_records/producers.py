"""How those are named who write to a stream.

```text
producer = path                    a branch; the workflow's own has none
         | key                     a loop: what its handler has refused for good
         | key "@" epoch "." n     an attempt of a step, named as the record of its failure would be
         | key "@*"                a step: what it writes belongs to all its attempts, and shares one fate
         | "k:" idempotency key    outsiders, who write to inputs and to nothing else
         | "w:" unique id
```

A branch may be called like an outsider: what tells them apart is whether the stream is an input.

SQL cuts the names of attempts, too: see ``stream_block`` in ``schema.sql``.
"""

from __future__ import annotations

import uuid

from dbosflow._records.keys import attempt_key

BODY = ""
"""The workflow's own branch."""
RESUMED = "*"
"""The attempt of values that belong to a step as a whole."""

_KEYED = "k:"
_UNIQUE = "w:"


def of_all_attempts(step_key: str) -> str:
    """Who writes what all attempts of a step share."""
    return attempt_key(step_key, RESUMED)


def is_of_step(producer: str) -> bool:
    """Whether one of the workflow's producers is a step or an attempt of one: in branches' paths there is no ``@``."""
    return "@" in producer


def is_resumed(producer: str) -> bool:
    """Whether it stands for all attempts of its step."""
    return producer.endswith(f"@{RESUMED}")


def of_idempotency_key(idempotency_key: str) -> str:
    """An outsider who may write the same value again."""
    return f"{_KEYED}{idempotency_key}"


def unique_outsider() -> str:
    """An outsider who writes one block, and is never heard of again."""
    return f"{_UNIQUE}{uuid.uuid4()}"


def idempotency_key_of(producer: str) -> str:
    """What ``of_idempotency_key`` was given."""
    return producer.removeprefix(_KEYED)
