"""Sets a new session up: sees that it is as ``dbosflow._sessions`` has it, by the cheapest way that works.

A server that is met for the first time is asked what is in force, once a process and URL: so it is known whether the
way to it takes options, and which settings it has. After that a session that the startup packet has set costs nothing:
the server reports by itself what an environment variable may have overridden.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from dbosflow import _sessions
from dbosflow._store import statements
from dbosflow.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    import psycopg
    from psycopg import ConnectionInfo

    Questions = Generator[tuple[str, dict[str, list[str]]], list[tuple[Any, ...]], None]
    """Statements with their values; each is sent its rows."""

_OPTIONS_REFUSED = re.compile(r"unsupported startup parameter|command-line options")
"""PgBouncer's words, which Neon and Supavisor share; and those of Amazon's RDS Proxy."""


@dataclass(frozen=True)
class _Way:
    """What is known of the way to a server, and of the server."""

    takes_options: bool = True
    missing: frozenset[str] = frozenset()
    """Settings that the server does not have."""
    known: bool = False
    """Whether it was asked."""


_ways: dict[str, _Way] = {}
"""By URL."""
_NEWER = frozenset({"transaction_timeout", "idle_session_timeout"})
"""Not of every server: one that has them not takes no connection with them."""
_UNKNOWN = re.compile(rf"\b({'|'.join(_NEWER)})\b")
"""What such a one says holds the name, in whichever language, between whichever quotes."""


class Wish(NamedTuple):
    """What a session is to be."""

    settings: Mapping[str, str]
    is_own: bool
    """Whether what is set in it stays ours: not behind a pooler in transaction mode."""
    any_encoding: bool = False
    """Whether the database may be of any encoding: only for who makes another one."""


def parameters(url: str, wish: Wish, given: str) -> dict[str, str]:
    """What is to be said when connecting; ``given`` are the user's own options."""
    way = _ways.get(url, _Way(missing=_NEWER))
    if not way.takes_options:
        return {"client_encoding": _sessions.ENCODING} | ({"options": given} if given else {})
    wanted = wish.settings if wish.is_own else _sessions.wanted()
    return _sessions.startup({name: value for name, value in wanted.items() if name not in way.missing}, given)


def is_to_be_tried_anew(url: str, error: psycopg.Error) -> bool:
    """Whether connecting failed by what was said then, and something else is to be said the next time."""
    way = _ways.get(url, _Way(missing=_NEWER))
    if way.takes_options and _OPTIONS_REFUSED.search(str(error)):
        _ways[url] = replace(way, takes_options=False)
        return True
    found = _UNKNOWN.search(str(error))
    if found and found[1] in _NEWER - way.missing:  # an older server stands there now
        _ways[url] = _Way(missing=_NEWER)
        return True
    return False


def setting_up(url: str, info: ConnectionInfo, wish: Wish) -> Questions:
    """What is to be asked and said in a new session before anything else: mostly nothing.

    Raises:
        ConfigurationError: the database cannot hold every text.
    """
    way = _ways.get(url, _Way())
    found = _sessions.reported(info.parameter_status)
    encoding = info.parameter_status("server_encoding")
    if not way.known:
        rows = yield _statement("settings"), {"names": list(_sessions.ASKED)}
        found = dict(rows)
        encoding = found["server_encoding"]
        way = _ways[url] = _learned(way, found, wish)
    if not wish.any_encoding and encoding not in {_sessions.ENCODING, None}:
        raise wrong_encoding(str(encoding), info.dbname)
    if not wish.is_own:
        return
    due = _sessions.differing(wish.settings, found)
    if not way.takes_options:
        due = {name: value for name, value in wish.settings.items() if name not in way.missing}
    if due:
        yield _statement("set"), {"names": [*due], "values": [*due.values()]}


def _learned(way: _Way, found: Mapping[str, str | None], wish: Wish) -> _Way:
    """What a server's answer says of the way to it. Some poolers take options, and pass none or a few of them on."""
    missing = frozenset(name for name in _NEWER if found[name] is None)
    dropped = _sessions.differing(wish.settings, found).keys() - _sessions.OVERRIDDEN - _NEWER
    return _Way(way.takes_options and not dropped, missing, known=True)


def wrong_encoding(encoding: str, database: str) -> ConfigurationError:
    """The refusal of a database that cannot hold our texts."""
    return ConfigurationError(
        f"database {database!r} has the encoding {encoding}, which cannot hold every text: dbosflow needs UTF8. "
        "A database keeps the encoding that it was made with, so make another one: "
        "CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0"
    )


def questions() -> tuple[str, dict[str, list[str]]]:
    """What a session is asked whose settings are to be judged."""
    return _statement("settings"), {"names": list(_sessions.ASKED)}


def check_pooled(found: Mapping[str, str | None], info: ConnectionInfo) -> None:
    """Refuses a pooler's sessions in which our statements would not do what they say.

    Raises:
        ConfigurationError: which has the statements that mend it.
    """
    wrong = _sessions.wrong(found)
    if not wrong:
        return
    mending = _sessions.mending(wrong, statements.quoted(info.user), statements.quoted(info.dbname))
    message = (
        "behind a pooler a session's settings are those of its role, and some do not fit: "
        f"{'; '.join(wrong.values())}. Run {' '.join(mending)} "
        "Then have the pooler connect anew (PgBouncer: RECONNECT). PGDATESTYLE and PGTZ count as well"
    )
    raise ConfigurationError(message)


def _statement(name: str) -> str:
    return statements.load("session")[name]
