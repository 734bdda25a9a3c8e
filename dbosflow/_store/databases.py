"""Creates databases as copies of another one, and drops them together with their connections."""

from __future__ import annotations

from psycopg import sql
from psycopg.conninfo import make_conninfo

from dbosflow._store.connect import connect
from dbosflow._store.urls import understood


def create(url: str, name: str, *, template: str = "template0") -> str:
    """Creates a database as a copy of ``template`` on the server of ``url``; returns its URL."""
    with connect(url, any_encoding=True) as connection:
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} ENCODING 'UTF8'")
        connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
    return make_conninfo(understood(url), dbname=name)


def drop(url: str, name: str) -> None:
    """Drops a database on the server of ``url``, if it exists."""
    with connect(url, any_encoding=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
