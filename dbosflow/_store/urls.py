"""Database URLs in the forms that people use: libpq's two, and SQLAlchemy's, which name a driver.

An option that SQLAlchemy passes to its driver is translated if libpq has an equivalent, and refused by name if not. No
message contains a URL or one of its values: either may be a password.
"""

from __future__ import annotations

import re
from typing import NoReturn
from urllib.parse import parse_qsl, quote, urlencode

from psycopg import pq

from dbosflow.errors import ConfigurationError

_DRIVEN = re.compile(r"postgres(?:ql)?\+(\w+)://")
_SCHEME = re.compile(r"postgres(?:ql)?(?:\+\w+)?://")
_DRIVERS = frozenset({"psycopg", "psycopg_async", "psycopg2", "psycopg2cffi", "asyncpg", "pg8000"})
_SAME = {"asyncpg": {"ssl": "sslmode", "timeout": "connect_timeout"}, "pg8000": {"timeout": "connect_timeout"}}
"""The options that a driver names differently than libpq."""
_PLAIN = re.compile(r"[a-z_0-9]{1,40}")


def understood(url: str) -> str:
    """``url`` in libpq's form.

    Raises:
        ConfigurationError: the URL names an unknown driver, or an option that has no equivalent; or the end of its
            password is unclear. The message shows nothing of the URL but the names of options.
    """
    _refuse_misplaced_secrets(url)
    found = _DRIVEN.match(url)
    if found is None:
        return url
    driver = found[1]
    if driver not in _DRIVERS:
        message = (
            f"the database URL names the driver {driver!r}, which is not one of Postgres: "
            "write postgresql://user:password@host:port/database"
        )
        raise ConfigurationError(message)
    place, _, query = url[found.end() :].partition("?")
    return f"postgresql://{place}{_carried(query, _SAME.get(driver, {}))}"


def _carried(query: str, same: dict[str, str]) -> str:
    """The options of a URL with libpq's names."""
    if not query:
        return ""
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    options: dict[str, str] = {}
    hosts: list[str] = []
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
    except ValueError:
        unreadable()
    for written, value in pairs:
        name = same.get(written, written)
        if name not in known:
            _refuse_option(written, query)
        if name == "host":
            hosts.append(value)
        else:
            options[name] = value
    # SQLAlchemy repeats `host`, each with its port. libpq has one list of hosts and one of ports.
    if hosts:
        places = [one.rpartition(":") if re.search(r":\d+$", one) else (one, "", "") for one in hosts]
        options["host"] = ",".join(host for host, _, _ in places)
        if any(port for _, _, port in places):
            options["port"] = ",".join(port for _, _, port in places)
    return f"?{urlencode(options, quote_via=quote)}"


def _refuse_option(name: str, query: str) -> NoReturn:
    if "@" in query or not _PLAIN.fullmatch(name):  # it may be the end of a password
        unreadable()
    message = (
        f"the database URL has the option {name!r}, which has no equivalent in libpq: leave it out "
        "(`sslmode`, `connect_timeout`, `options`, `target_session_attrs` and the like are libpq's)"
    )
    raise ConfigurationError(message)


def _refuse_misplaced_secrets(url: str) -> None:
    """Refuses a URL whose password contains a bare ``@`` or ``/``: the rest would be taken for a host or a database."""
    found = _SCHEME.match(url)
    if found is None:
        return
    authority, _, path = url[found.end() :].partition("?")[0].partition("/")
    if authority.count("@") > 1 or "@" in path:
        unreadable()


def unreadable() -> NoReturn:
    """Raises an error that shows nothing of the URL."""
    message = (
        "the database URL cannot be read (it is not shown here, since it may hold a password). "
        "Write postgresql://user:password@host:port/database, with special characters of the password "
        "percent-encoded, or libpq's key=value form."
    )
    raise ConfigurationError(message) from None
