"""The time, ids and random numbers for the bodies of workflows.

Each name here is what it is in the standard library, and in a workflow's body it is on record: a replay gets the same
value as the first run. A call waits for nothing and costs a row, but no statement of its own. The next step begins once
these rows are durable, so no outside service ever sees a value that a recovered workflow would draw anew.

```python
from dbosflow import durable, step, workflow


@workflow
async def order(item: str) -> str:
    order_id = durable.uuid4()
    if durable.random() < 0.01:
        await audit(order_id, durable.now())
    return await ship(order_id, item)
```

In a step, and outside of workflows, they are the plain ones: there a new value each time is what is meant.
"""

from __future__ import annotations

import random as plain_random
import secrets
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID
from uuid import uuid4 as plain_uuid4

from dbosflow._runtime.execution.scope import current_scope
from dbosflow._runtime.operations.draws import Draw, drawn
from dbosflow._runtime.replay.branch import Branch
from dbosflow.serde import Codec

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Random", "now", "random", "uuid4"]

_NOW: Draw[datetime] = Draw("now", Codec(datetime, "the time"))
_UUID4: Draw[UUID] = Draw("uuid4", Codec(UUID, "the id"))
_RANDOM: Draw[float] = Draw("random", Codec(float, "the random number"))
_SEED: Draw[int] = Draw("Random", Codec(int, "the seed"))

_SEED_BITS = 128


def now() -> datetime:
    """The current time, in UTC, by the clock of the worker that runs the workflow.

    A recovered workflow may run on a worker whose clock differs. For waits use ``sleep`` and ``timeout``, which go by
    the database's clock.

    Raises:
        BranchError: the caller is no branch of its workflow.
    """
    scope = current_scope()
    if not isinstance(scope, Branch):
        return datetime.now(UTC)
    clock = scope.run.environment.clock
    return drawn(scope, _NOW, lambda: datetime.now(UTC) + timedelta(seconds=clock.ahead)).astimezone(UTC)


def uuid4() -> UUID:
    """A new random UUID.

    For a call to an outside service, ``current().idempotency_key`` in a step does without a record.

    Raises:
        BranchError: the caller is no branch of its workflow.
    """
    scope = current_scope()
    return drawn(scope, _UUID4, plain_uuid4) if isinstance(scope, Branch) else plain_uuid4()


def random() -> float:
    """A random number, at least 0 and less than 1. For many of them, or for a choice or a shuffle, see ``Random``.

    Raises:
        BranchError: the caller is no branch of its workflow.
    """
    scope = current_scope()
    fresh = plain_random.random
    return drawn(scope, _RANDOM, fresh) if isinstance(scope, Branch) else fresh()


class Random(plain_random.Random):
    """A generator with all methods of ``random.Random``. In a workflow's body its seed is on record.

    One record serves any number of values: a replay makes the same generator again. Its values are not for secrets.

    ```python
    generator = durable.Random()
    generator.shuffle(items)
    sample = generator.choices(items, k=10)
    ```

    Args:
        seed: the seed, as for ``random.Random``. Default: a new one, which goes on record.

    Raises:
        BranchError: the caller is no branch of its workflow.
    """

    def seed(self, a: Any = None, version: int = 2) -> None:
        """Starts anew, from the seed ``a`` or from a new one."""
        super().seed(_new_seed() if a is None else a, version)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[()], tuple[Any, ...]]:
        """Copies and pickles the state, as a plain generator: a copy draws no seed."""
        return plain_random.Random, (), self.getstate()


def _new_seed() -> int:
    scope = current_scope()
    return drawn(scope, _SEED, _seed) if isinstance(scope, Branch) else _seed()


def _seed() -> int:
    return secrets.randbits(_SEED_BITS)
