"""The attempts to connect of one caller: where they go, what is tried again, for how long, and what is said of it.

What passes by itself is tried again; what only a person can mend fails at once. See ``connect``.
"""

from __future__ import annotations

import logging
import math
import os
import random
import re
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from psycopg import conninfo, pq

from dbosflow._store.setup import is_to_be_tried_anew, parameters, wrong_encoding
from dbosflow._store.urls import understood, unreadable
from dbosflow.errors import ConfigurationError, DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dbosflow._store.setup import Wish

logger = logging.getLogger("dbosflow.database")

SOON = 1.0
"""Seconds after which somebody who looks at the log is told what is waited for: a server restarts faster."""

_FIRST_PAUSE = 0.05
"""Seconds, doubled at each failure: a refused connection costs a server that starts up next to nothing."""
_LONGEST_PAUSE = 1.0
"""Seconds: a database that is back is used again within that time, and hundreds of workers do not press it."""

SHORTEST_ATTEMPT = 2
"""Seconds: libpq allows no shorter connect_timeout."""
LONGEST_ATTEMPT = 10
"""Seconds: a longer attempt would wait for a silent host when the next one may answer."""

_ONE_OF_THEM = {"read-write", "primary"}
"""The ``target_session_attrs`` by which only one of several hosts will do, so that their order means nothing."""

_answered: dict[str, int] = {}
"""Which of a URL's hosts answered last."""

# A peer that fell silent is noticed within the order of a lease, not after the kernel's two hours.
_DEFAULTS: Mapping[str, str | int] = {
    "fallback_application_name": "dbosflow",  # PGAPPNAME and the URL go before
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}

# A setting that psycopg itself refuses is a ProgrammingError.
FAILURES = (psycopg.OperationalError, psycopg.ProgrammingError)

# libpq keeps no SQLSTATE of a connection that failed, so its text is all there is to tell 28xxx, 3D000 and the like.
# A server that speaks another language than English is tried until the time is over, and its own words are shown then.
_FINAL = re.compile(
    r"authentication failed"
    r"|no password supplied"
    r"|no pg_hba\.conf entry"
    r'|role ".*" (does not exist|is not permitted to log in)'
    r'|database ".*" (does not exist|is not currently accepting connections)'
    r"|permission denied for database"
    r"|no such (database|user)"  # PgBouncer's words
    r"|server does not support SSL"
    r"|unsupported startup parameter|command-line options"  # PgBouncer's and RDS Proxy's, on options of the URL
    r"|unrecognized configuration parameter|invalid value for parameter|invalid command-line argument"
    r"|invalid \w+ value|bad value for|could not match",  # libpq's and psycopg's words on a setting
)


_INCONVERTIBLE = re.compile(r"\bUTF8\b.*\b(MULE_INTERNAL)\b")
"""What a server says, in any language, of the only encoding in which our texts cannot even be sent."""


class Target(NamedTuple):
    """Where a URL leads: what psycopg is given, and how messages call it."""

    url: str
    settings: dict[str, Any]
    hosts: list[tuple[str, str]]
    """Host and port of each, in the order of the URL."""
    place: str
    database: str
    options: str
    """The user's own, of the URL or of PGOPTIONS."""

    def reached(self, url: str, connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
        """Remembers which host this is."""
        host = (connection.info.host, str(connection.info.port))
        if host in self.hosts:
            _answered[url] = self.hosts.index(host)


def target_of(named: str) -> Target:
    """Reads a URL: a ``postgresql://`` URL, one of SQLAlchemy's, or libpq's ``key=value`` form."""
    url = understood(named)
    try:
        given = conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        unreadable()
    # As libpq itself would fill them in, from the environment or from what it was built with.
    known = {option.keyword.decode(): (option.val or b"").decode() for option in pq.Conninfo.get_defaults()}
    known |= {key: str(value) for key, value in given.items()}
    ports = known["port"].split(",")
    if not all(port.isdecimal() for port in ports if port):
        unreadable()
    hosts = (known["host"] or known["hostaddr"] or "local socket").split(",")
    ports = ports if len(ports) == len(hosts) else ports[:1] * len(hosts)
    places = list(zip(hosts, ports, strict=True))
    where = ", ".join(f"{host}:{port}" for host, port in places)
    database = known["dbname"] or known["user"]
    place = f"{where}, database {database!r}, user {known['user']!r}"
    settings: dict[str, Any] = {key: value for key, value in _DEFAULTS.items() if key not in given}
    if known["connect_timeout"]:
        settings["connect_timeout"] = known["connect_timeout"]
    if known["target_session_attrs"] in _ONE_OF_THEM and (first := _answered.get(named)):
        url = conninfo.make_conninfo(url, **_from(first, known))
    return Target(url, settings, places, place, database, known["options"])


def _from(first: int, known: Mapping[str, str]) -> dict[str, str]:
    """The lists of a URL with several hosts, to be tried from the host of this number on."""
    lists = {name: known[name].split(",") for name in ("host", "hostaddr", "port")}
    return {name: ",".join(each[first:] + each[:first]) for name, each in lists.items() if len(each) > 1}


def _no_descriptors() -> str | None:
    """Why this process cannot even ask, if that is so: libpq has no word for it."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return f"{error.strerror}: this process may open no more of them, connections included (ulimit -n)"
    return None


class Attempts:
    """The attempts to connect, of one caller."""

    def __init__(self, url: str, timeout: float, wish: Wish) -> None:
        self.target = target_of(url)
        self._url = url
        self._wish = wish
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._failures = 0
        self._is_said = False
        self._reason = "it has not answered yet"

    def parameters(self, *, brief: bool = False) -> dict[str, Any]:
        """What one attempt is given: each of the URL's hosts gets its share of the time that is left.

        ``brief``: the first one takes as little as it can.
        """
        target = self.target
        share = math.ceil((self._deadline - time.monotonic()) / len(target.hosts))
        # Of a server that stays silent there is to be a word before long, which a thread that waits cannot say.
        longest = LONGEST_ATTEMPT if self._failures or not brief else SHORTEST_ATTEMPT
        allowed = min(max(share, SHORTEST_ATTEMPT), longest)
        # A pooler in transaction mode would run a prepared statement on a connection that does not know it.
        prepared = {} if self._wish.is_own else {"prepare_threshold": None}
        ours = parameters(self._url, self._wish, target.options)
        return {"connect_timeout": allowed} | target.settings | prepared | ours

    def reached(self, connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
        """One has succeeded."""
        self.target.reached(self._url, connection)

    def pause(self, error: psycopg.Error) -> float:
        """How long to wait before the next attempt; raises where there is to be none."""
        if is_to_be_tried_anew(self._url, error):
            return 0.0
        self._failures += 1
        no_descriptors = _no_descriptors()
        self._reason = cause = no_descriptors or str(error).strip().partition("\n")[0]
        if unlike := _INCONVERTIBLE.search(str(error)):
            raise wrong_encoding(unlike[1], self.target.database) from error
        if _FINAL.search(str(error)):
            message = (
                f"Postgres at {self.target.place} cannot be used with this database URL: {cause}. "
                "Check the URL's user, password, database name and settings."
            )
            raise ConfigurationError(message) from error
        left = self._deadline - time.monotonic()
        if left <= 0:
            message = (
                f"no connection to Postgres at {self.target.place} within {self._timeout:g} s "
                f"(attempt {self._failures}): {cause}"
            )
            if no_descriptors is None:
                message += ". Is the server running, and can this machine reach it?"
            raise DatabaseUnavailableError(message) from error
        self.target = target_of(self._url)  # another host may be asked first by now
        # Halved at random: workers that lost the same server must not come back as one.
        pause = min(_FIRST_PAUSE * 2.0 ** min(self._failures, 10), _LONGEST_PAUSE) * random.uniform(0.5, 1)  # noqa: S311 - no secret
        pause = min(pause, left)
        if self._timeout - left + pause >= SOON:  # a thread that sleeps cannot say it later
            self.say()
        return pause

    def say(self) -> None:
        """Tells whoever looks at the log what is waited for, once."""
        if self._is_said:
            return
        self._is_said = True
        logger.warning(
            "no connection to Postgres at %s yet: %s; trying for up to %g s",
            self.target.place,
            self._reason,
            self._timeout,
        )
