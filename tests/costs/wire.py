"""What an engine says to Postgres, read off the wire and counted: by statement, and by what a connection is for.

Counts are what a machine's speed does not change. The proxy reads the frontend's half of the protocol before it hands
it on, so whatever has been answered has been counted.
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from dbosflow._store import statements
from tests.behaviour.proxy import Proxy

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping

_TABLES = (
    *(
        "batch",
        "claim",
        "message",
        "outbox",
        "notify",
        "retention",
        "dedup",
        "schema_version",
        "session",
        "step",
        "stream",
        "worker",
        "workflow",
        "waiter",
        "waiting",
        "used_units",
    ),
)
_PLACE = re.compile(r"\$\d+|%\(\w+\)s")
_BATCH = "dbosflow_batch_"

_LAST = "dbosflow_last_"

_ROLES = {
    "BEGIN": "transactions",
    "batch.timeline": "worker",
    "worker.renew": "leases",
    "LISTEN": "listener",
    "workflow.enqueue": "enqueuer",
}
"""What a connection is for, by the first statement that only those of its kind send."""

_SET = [
    ("reader", "plan_cache_mode=force_generic_plan"),  # as a worker's
    ("pool", "enable_seqscan=off"),
    ("notifier", "synchronous_commit=off"),
]
"""What a connection is for, by the first of these that its session begins with."""

_TIMED = {"LISTEN", "worker.renew", "worker.survey"}
"""What the passing of time sends, however little there is to do."""


class Message(NamedTuple):
    """A message that a client sent."""

    session: Session
    kind: str
    """``parse``, ``execute``, ``round trip`` (the server answers, and the client waits) or ``other``."""
    statement: str
    size: int


class Session:
    """One connection's half of the protocol, read message by message."""

    def __init__(self) -> None:
        self.role = "other"
        self._buffer = bytearray()
        self._begun = False
        self._prepared: dict[str, str] = {}
        self._portals: dict[str, str] = {}

    @property
    def prepared_names(self) -> set[str]:
        """The names of its prepared statements; what is parsed without one is gone with the next."""
        return {name for name in self._prepared if name}

    def read(self, data: bytes) -> Iterator[Message]:
        """The messages that are complete with this data."""
        self._buffer += data
        while True:
            header = 1 if self._begun else 0  # the first one has no type
            if len(self._buffer) < header + 4:
                return
            size = header + int.from_bytes(self._buffer[header : header + 4])
            if len(self._buffer) < size:
                return
            kind, body = chr(self._buffer[0]) if header else "", bytes(self._buffer[header + 4 : size])
            del self._buffer[:size]
            if not self._begun:
                self.role = next((role for role, setting in _SET if setting.encode() in body), self.role)
            self._begun = True
            yield from self._messages(kind, body, size)

    def _messages(self, kind: str, body: bytes, size: int) -> Iterator[Message]:
        if kind == "P":
            name, text = _words(body, 2)
            self._prepared[name] = statement = _named(name, text)
            yield Message(self, "parse", statement, size)
        elif kind == "B":
            portal, name = _words(body, 2)
            self._portals[portal] = statement = self._prepared[name]
            yield Message(self, "other", statement, size)
        elif kind == "E":
            yield self._executed(self._portals[_words(body, 1)[0]], size)
        elif kind == "Q":
            yield self._executed(_name(_words(body, 1)[0]), size)
            yield Message(self, "round trip", "", 0)
        else:
            yield Message(self, "round trip" if kind == "S" else "other", "", size)

    def _executed(self, statement: str, size: int) -> Message:
        self.role = _ROLES.get(statement, self.role)
        return Message(self, "execute", statement, size)


def _words(body: bytes, count: int) -> list[str]:
    return [word.decode() for word in body.split(b"\0", count)[:count]]


def _named(name: str, text: str) -> str:
    """A prepared statement's name."""
    if _LAST in name:
        return "last"
    return f"batch {name.removeprefix(_BATCH)}" if _BATCH in name else _name(text)


def _name(text: str) -> str:
    """A statement's name in ``sql/<table>.sql``; of one from elsewhere its first word."""
    plain = _PLACE.sub("?", text)
    return _names().get(plain) or plain.split(None, 1)[0].upper()


@cache
def _names() -> Mapping[str, str]:
    found = {}
    for table in _TABLES:
        for sections in (("message", "options"), ("options",)):
            for name, body in statements.load(table, statements.DEFAULT_SCHEMA, *sections).items():
                found[body] = f"{table}.{name} with {sections[0]}"
        found |= {body: f"{table}.{name}" for name, body in statements.load(table).items()}
    return {_PLACE.sub("?", body).replace("%%", "%"): name for body, name in found.items()}


@dataclass
class Counts:
    """What was sent during a block. What time alone sends is left out: it says nothing of the work."""

    messages: list[Message] = field(default_factory=list)

    @property
    def executed(self) -> Counter[str]:
        """How often each statement was executed; a batch is ``batch`` and the sections that it has rows for.

        Before these ``one_`` if it has one row of each, which it sends as plain values, and no arrays.
        """
        return self._count("execute")

    @property
    def prepared(self) -> Counter[str]:
        """How often each statement was parsed: once a connection, if it is prepared."""
        return self._count("parse")

    @property
    def batches(self) -> int:
        """The journal's statements."""
        return sum(count for statement, count in self.executed.items() if statement.startswith("batch "))

    @property
    def others(self) -> Counter[str]:
        """What was executed besides the journal's statements."""
        return Counter({name: count for name, count in self.executed.items() if not name.startswith("batch ")})

    def round_trips(self, role: str) -> int:
        """How often connections of this role waited for an answer."""
        return sum(one.kind == "round trip" and one.session.role == role for one in self.messages)

    def sent(self, role: str) -> int:
        """The bytes that connections of this role sent."""
        return sum(one.size for one in self.messages if one.session.role == role)

    def _count(self, kind: str) -> Counter[str]:
        return Counter(one.statement for one in self.messages if one.kind == kind and one.statement not in _TIMED)


class Wire(Proxy):
    """A proxy that counts."""

    def __init__(self, url: str) -> None:
        self.messages: list[Message] = []
        self._sessions: dict[socket.socket, Session] = {}
        super().__init__(url)

    def sent(self, client: socket.socket, data: bytes) -> None:
        session = self._sessions.setdefault(client, Session())
        self.messages.extend(session.read(data))

    @property
    def roles(self) -> set[str]:
        """What there are connections for."""
        return {session.role for session in list(self._sessions.values())}

    @property
    def sessions(self) -> list[Session]:
        """All connections that were made, oldest first."""
        return list(self._sessions.values())

    def since(self, place: int) -> Counts:
        """What was sent behind that many messages."""
        return Counts(self.messages[place:])

    @contextmanager
    def counted(self) -> Iterator[Counts]:
        """Counts the block."""
        counts, place = Counts(), len(self.messages)
        yield counts
        counts.messages = self.messages[place:]


@contextmanager
def wire(url: str) -> Iterator[Wire]:
    """A wire before the server of ``url`` during the block."""
    before = Wire(url)
    try:
        yield before
    finally:
        before.close()
