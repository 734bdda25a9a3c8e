"""The queues in which pinned workflows wait: each version has queues of its own, which only its workers serve.

```text
stored queue = queue                                       any worker of the queue
             | "dbosflow/pinned/" version "/" queue        the workers of the queue that carry the version
```

So a claim of a queue never meets what it may not take, whatever code it is of, and nothing else needs to know of pins:
a workflow goes back to where it waited before, however it got out of there. SQL knows the prefix, too: see
``version.sql`` and ``listing.sql``.
"""

from __future__ import annotations

from dbosflow.config import check_identifier
from dbosflow.errors import ConfigurationError

_PINNED = "dbosflow/pinned/"
_RESERVED = "dbosflow/"


def stored_queue(queue: str, version: str | None) -> str:
    """Where a workflow of this queue waits that is pinned to a version; ``None``: that is not pinned."""
    return queue if version is None else f"{_PINNED}{version}/{queue}"


def version_of(stored: str) -> str | None:
    """The version to which a workflow is pinned that waits there; ``None``: to none."""
    return stored.removeprefix(_PINNED).partition("/")[0] if stored.startswith(_PINNED) else None


def queue_of(stored: str) -> str:
    """The queue in its user's words."""
    return stored.removeprefix(_PINNED).partition("/")[2] if stored.startswith(_PINNED) else stored


def check_queue(queue: object) -> str:
    """``queue``, if it is a valid name for one. Otherwise raises a ``ConfigurationError``."""
    found = check_identifier("queue", queue)
    if found.startswith(_RESERVED):
        msg = f"queue {found!r} must not begin with {_RESERVED!r}: pinned workflows wait in queues of such names"
        raise ConfigurationError(msg)
    return found
