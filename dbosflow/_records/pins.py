r"""The queues in which workflows wait, as they are stored: with a version they are pinned to, and with a partition.

```text
stored queue = claimed queue | claimed queue "\x1f" partition key
claimed queue = queue                                       any worker of the queue
              | "dbosflow/pinned/" version "/" queue        the workers of the queue that carry the version
```

So a claim of a queue never meets what it may not take, whatever code it is of, and nothing else needs to know of pins
or partitions: a workflow goes back to where it waited before, however it got out of there. SQL knows these forms, too:
see ``version.sql``, ``listing.sql`` and ``queue.sql``.
"""

from __future__ import annotations

from dbosflow.config import check_identifier
from dbosflow.errors import ConfigurationError

_PINNED = "dbosflow/pinned/"
_RESERVED = "dbosflow/"
_SEPARATOR = "\x1f"


def stored_queue(queue: str, version: str | None, partition_key: str | None = None) -> str:
    """Where a workflow of this queue waits that is pinned to a version (``None``: it is not), and has a partition."""
    claimed = queue if version is None else f"{_PINNED}{version}/{queue}"
    return claimed if partition_key is None else f"{claimed}{_SEPARATOR}{partition_key}"


def version_of(stored: str) -> str | None:
    """The version to which a workflow is pinned that waits there; ``None``: to none."""
    return stored.removeprefix(_PINNED).partition("/")[0] if stored.startswith(_PINNED) else None


def queue_of(stored: str) -> str:
    """The queue in its user's words."""
    claimed = claimed_queue(stored)
    return claimed.removeprefix(_PINNED).partition("/")[2] if claimed.startswith(_PINNED) else claimed


def claimed_queue(stored: str) -> str:
    """The queue under which workers claim what waits there: that of all its partitions."""
    return stored.partition(_SEPARATOR)[0]


def partition_of(stored: str) -> str | None:
    """The partition key of what waits there; ``None``: it has none."""
    _, separator, key = stored.partition(_SEPARATOR)
    return key if separator else None


def check_queue(queue: object) -> str:
    """``queue``, if it is a valid name for one. Otherwise raises a ``ConfigurationError``."""
    found = check_identifier("queue", queue)
    if found.startswith(_RESERVED):
        msg = f"queue {found!r} must not begin with {_RESERVED!r}: pinned workflows wait in queues of such names"
        raise ConfigurationError(msg)
    return _without_separator("queue", found)


def check_partition_key(key: object, queue: str | None) -> None:
    """Raises a ``ConfigurationError`` if ``key`` is no partition key of a workflow in ``queue``."""
    if key is None:
        return
    _without_separator("partition_key", check_identifier("partition_key", key))
    if queue is None:
        msg = f"partition_key={key!r} is a partition of a queue: add queue=..."
        raise ConfigurationError(msg)


def _without_separator(what: str, text: str) -> str:
    if _SEPARATOR in text:
        msg = f"{what} {text!r} must not hold the character U+001F, which stands between a queue and a partition key"
        raise ConfigurationError(msg)
    return text
