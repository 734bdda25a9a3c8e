"""Sets up a new session: makes sure, in the cheapest way, that its settings are those of ``dbosflow._sessions``.

The first session of a process with a URL queries the settings in force. The answer shows whether the connection takes
options, and which settings the server has. After that, a session that was set by the startup packet costs nothing,
because the server reports by itself the settings that an environment variable may have overridden.
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
    """Yields statements with their values, and is sent the rows of each."""

_OPTIONS_REFUSED = re.compile(r"unsupported startup parameter|command-line options")
"""The messages of PgBouncer, which Neon and Supavisor share, and of Amazon's RDS Proxy."""


@dataclass(frozen=True)
class _Way:
    """What is known about a server and the connection to it."""

    takes_options: bool = True
    missing: frozenset[str] = frozenset()
    """Settings that the server does not have."""
    known: bool = False
    """Whether the server was queried."""


_ways: dict[str, _Way] = {}
"""What is known, by URL."""
_NEWER = frozenset({"transaction_timeout", "idle_session_timeout"})
"""Settings that not every server has. A server without one of them refuses a connection that sets it."""
_UNKNOWN = re.compile(rf"\b({'|'.join(_NEWER)})\b")
"""Finds the setting's name in that server's message, in any language and between any quotes."""


class Wish(NamedTuple):
    """The wanted properties of a session."""

    settings: Mapping[str, str]
    is_own: bool
    """Whether settings stay with us: not behind a pooler in transaction mode."""
    any_encoding: bool = False
    """Whether the database may have any encoding: only for connections that create another one."""


def parameters(url: str, wish: Wish, given: str) -> dict[str, str]:
    """The parameters of a connection. ``given`` are the user's own options."""
    way = _ways.get(url, _Way(missing=_NEWER))
    if not way.takes_options:
        return {"client_encoding": _sessions.ENCODING} | ({"options": given} if given else {})
    wanted = wish.settings if wish.is_own else _sessions.wanted()
    return _sessions.startup({name: value for name, value in wanted.items() if name not in way.missing}, given)


def is_to_be_tried_anew(url: str, error: psycopg.Error) -> bool:
    """Whether a connection failed because of its parameters, and the next one will have others."""
    way = _ways.get(url, _Way(missing=_NEWER))
    if way.takes_options and _OPTIONS_REFUSED.search(str(error)):
        _ways[url] = replace(way, takes_options=False)
        return True
    found = _UNKNOWN.search(str(error))
    if found and found[1] in _NEWER - way.missing:  # the server is now an older one
        _ways[url] = _Way(missing=_NEWER)
        return True
    return False


def setting_up(url: str, info: ConnectionInfo, wish: Wish) -> Questions:
    """The statements at the beginning of a new session: mostly none.

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
    """What a server's answer shows about the connection. Some poolers take options, and pass on none or only a few."""
    missing = frozenset(name for name in _NEWER if found[name] is None)
    dropped = _sessions.differing(wish.settings, found).keys() - _sessions.OVERRIDDEN - _NEWER
    return _Way(way.takes_options and not dropped, missing, known=True)


def wrong_encoding(encoding: str, database: str) -> ConfigurationError:
    """The error for a database that cannot hold our texts."""
    return ConfigurationError(
        f"database {database!r} has the encoding {encoding}, which cannot hold every text: dbosflow needs UTF8. "
        "A database keeps the encoding that it was made with, so make another one: "
        "CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0"
    )


def questions() -> tuple[str, dict[str, list[str]]]:
    """The query for the settings of a session."""
    return _statement("settings"), {"names": list(_sessions.ASKED)}


def check_pooled(found: Mapping[str, str | None], info: ConnectionInfo) -> None:
    """Raises an error for sessions of a pooler in which our statements would not work as intended.

    Raises:
        ConfigurationError: the settings do not fit. The message has the statements that correct them.
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
