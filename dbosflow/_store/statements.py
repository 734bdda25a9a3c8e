"""Loads the named statements of ``sql/<table>.sql``.

The files run unchanged in psql: parameters are psql variables (``:name``), tables are written ``dbosflow.<table>``.
Loading turns ``:name`` into psycopg's ``%(name)s``, and ``dbosflow.`` into the configured schema, quoted. So the
schema's name enters the SQL only here, and never by a format string at run time. Literals, quoted names and comments in
the SQL are left alone, whatever they contain.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, LiteralString, cast

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

DEFAULT_SCHEMA = "dbosflow"

_NAME = re.compile(r"^-- name: *(\w+)[^\n]*\n", re.MULTILINE)
_SECTION = re.compile(r"^-- \[(\w+)\n(.*?)^-- \]\n", re.MULTILINE | re.DOTALL)
_TOKEN = re.compile(
    r"""
      (?P<kept>'(?:[^']|'')*' | "(?:[^"]|"")*" | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
    | (?P<comment>^[ \t]*--[^\n]*\n? | [ \t]*--[^\n]*)
    | (?<![:\w]):(?P<parameter>[a-z_]\w*)
    | \b(?P<schema>dbosflow)\.
    """,
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
"""The tokens, in the order in which SQL itself would recognize them. Our files have no E'' and no /* */."""
_PART = "part_"
_PLACE = re.compile(r"%\((\w+)\)s|%%")


@cache
def source(table: str) -> Mapping[str, str]:
    """The statements of ``sql/<table>.sql`` by name, unchanged."""
    parts = _NAME.split(files(__package__).joinpath("sql", f"{table}.sql").read_text("utf-8"))
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@cache
def load(table: str, schema: str = DEFAULT_SCHEMA, *sections: str) -> Mapping[str, str]:
    """The statements of ``sql/<table>.sql`` by name, ready for psycopg, with only these sections.

    What is named ``part_...`` is no statement: it stands in those of its file, and in parts after it, where they say
    ``:part_...``.
    """
    found = source(table)
    texts = {name: with_sections(body, sections) for name, body in found.items()}
    parts: dict[str, str] = {}
    for name, text in texts.items():
        if name.startswith(_PART):
            parts[name] = prepare(text, schema, parts)
    return {name: prepare(text, schema, parts) for name, text in texts.items() if name not in parts}


def with_sections(text: str, names: Container[str]) -> str:
    """A statement with only the sections of these names. A section stands between lines ``-- [name`` and ``-- ]``."""
    return _SECTION.sub(lambda section: section[2] if section[1] in names else "", text)


def prepare(text: str, schema: str, parts: Mapping[str, str] = MappingProxyType({})) -> str:
    """A psql statement in psycopg's form, in ``schema``.

    A variable that is in ``parts`` stands for that SQL, which is in psycopg's form already.
    """
    name = quoted(schema).replace("%", "%%") if schema != DEFAULT_SCHEMA else schema

    def ready(token: re.Match[str]) -> str:
        if parameter := token["parameter"]:
            return parts.get(parameter) or f"%({parameter})s"
        if token["schema"]:
            return f"{name}."
        return "" if token["comment"] else token[0]

    # Here and not afterwards, so that the % of a parameter stays single.
    return _TOKEN.sub(ready, text.replace("%", "%%")).strip().rstrip(";\n")


def numbered(text: str, names: Sequence[str]) -> str:
    """Turns a statement from psycopg's form into libpq's: the parameters, in the given order, become ``$1`` etc."""
    numbers = {name: f"${number}" for number, name in enumerate(names, 1)}
    return _PLACE.sub(lambda place: numbers[place[1]] if place[1] else "%", text)


def in_schema(text: str, schema: str) -> str:
    """``text`` with ``schema``, safely quoted, in place of every ``dbosflow.``."""
    if schema == DEFAULT_SCHEMA:
        return text
    name = quoted(schema)
    return _TOKEN.sub(lambda token: f"{name}." if token["schema"] else token[0], text)


def quoted(identifier: str) -> str:
    """``identifier``, quoted for SQL."""
    return sql.Identifier(identifier).as_string(None)


def literal(text: Any) -> LiteralString:
    """Marks SQL from our own files as a literal, which psycopg's types require."""
    return cast("LiteralString", text)
