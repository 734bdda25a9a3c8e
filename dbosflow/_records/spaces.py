"""The streams that the engine itself keeps for a workflow: their keys, which no user's key can be.

```text
key = "dbosflow/inbox/" topic              messages from outside; the workflow reads them with ``recv``
    | "dbosflow/event/" name               what the workflow sets with ``set_event``; the last value counts
    | "dbosflow/reply/" offset "/" topic   the reply to the message at that offset: one frame
    | "dbosflow/token/" key                the answer to the token that was created at that key: one frame from outside
```

A stream that belongs to no workflow has an id of its own, which begins like these keys, and which no workflow can have;
its key is always the same.

None of the keys above is a declared input, and none gets a terminal frame when its workflow ends: whoever writes or
reads them sees the workflow's status in the same statement. SQL knows the prefixes, too: see ``message.sql`` and
``stream.sql``.
"""

from __future__ import annotations

import uuid
from functools import lru_cache

from dbosflow.config import MAX_IDENTIFIER, check_identifier
from dbosflow.errors import ConfigurationError

RESERVED = "dbosflow/"
"""How the keys of all these streams begin."""
_INBOX = f"{RESERVED}inbox/"
_EVENT = f"{RESERVED}event/"
_REPLY = f"{RESERVED}reply/"
_TOKEN = f"{RESERVED}token/"
_STANDALONE = f"{RESERVED}stream/"
STANDALONE_KEY = "stream"
"""The key of every stream that belongs to no workflow. SQL knows it, too: see ``standalone.sql``."""
_LONGEST = MAX_IDENTIFIER - 40
"""In bytes: with its prefix, and an offset, a topic is still a valid key."""


def inbox_key(topic: str) -> str:
    """The key of the stream of a topic's messages."""
    return f"{_INBOX}{topic}"


def topic_of(key: str) -> str:
    """The topic whose inbox has this key."""
    return key.removeprefix(_INBOX)


def event_key(name: str) -> str:
    """The key of the stream of an event's values."""
    return f"{_EVENT}{name}"


def event_of(key: str) -> str:
    """The event whose stream has this key."""
    return key.removeprefix(_EVENT)


def reply_key(topic: str, offset: int) -> str:
    """The key of the stream with the reply to a message."""
    return f"{_REPLY}{offset}/{topic}"


def token_key(operation_key: str) -> str:
    """The key of the stream with the answer to a token."""
    return f"{_TOKEN}{operation_key}"


def token_of(key: str) -> str:
    """The key of the operation that has created the token whose answer has this key."""
    return key.removeprefix(_TOKEN)


def is_reserved(key: str) -> bool:
    """Whether a stream is one of the engine's own."""
    return key.startswith(RESERVED)


def is_from_outside(key: str) -> bool:
    """Whether only outsiders write to the stream, and not its workflow."""
    return key.startswith((_INBOX, _TOKEN))


def check_own_key(key: object) -> str:
    """``key``, if users may write to a stream of that key. Otherwise raises a ``ConfigurationError``."""
    return _own_key(key) if isinstance(key, str) else check_identifier("stream key", key)


@lru_cache(1024)  # each value is written under a key
def _own_key(key: str) -> str:
    check_identifier("stream key", key)
    if is_reserved(key):
        msg = (
            f"stream key {key!r} must not begin with {RESERVED!r}: those streams hold messages and events. Write "
            "them with send and set_event, or take another key"
        )
        raise ConfigurationError(msg)
    return key


def check_topic(topic: object) -> str:
    """``topic``, if it is a valid one, which may be empty. Otherwise raises a ``ConfigurationError``."""
    return topic if topic == "" and isinstance(topic, str) else check_identifier("topic", topic, longest=_LONGEST)


def check_event(name: object) -> str:
    """``name``, if it can name an event. Otherwise raises a ``ConfigurationError``."""
    return check_identifier("event name", name, longest=_LONGEST)


def standalone_id() -> str:
    """An id for a stream that belongs to no workflow, which none had before."""
    return f"{_STANDALONE}{uuid.uuid4()}"


def check_workflow_id(workflow_id: object) -> str:
    """``workflow_id``, if a workflow may have it. Otherwise raises a ``ConfigurationError``."""
    found = check_identifier("workflow id", workflow_id)
    if found.startswith(_STANDALONE):
        msg = f"workflow id {found!r} must not begin with {_STANDALONE!r}: streams without a workflow have such ids"
        raise ConfigurationError(msg)
    return found
