"""Whether the server reads a statement, without running it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from psycopg.pq import ExecStatus

from dbosflow._store import statements

if TYPE_CHECKING:
    import psycopg

PLACE = re.compile(r"%\((\w+)\)s|%%")


def parameters_of(text: str) -> list[str]:
    """The parameters of a statement that is ready for psycopg, in the order in which it first names them."""
    return [name for name in dict.fromkeys(PLACE.findall(text)) if name]


def assert_is_read(connection: psycopg.Connection[Any], text: str, what: object) -> None:
    """The server can parse and analyze the statement."""
    result = connection.pgconn.prepare(b"", statements.numbered(text, parameters_of(text)).encode())
    assert result.status == ExecStatus.COMMAND_OK, (what, result.error_message)
