"""Arrays of texts arrive as they are, and are always of one type."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.adapt import PyFormat, Transformer

from dbosflow._store.arrays import ARRAYS, Texts, dump_values


@pytest.mark.parametrize(
    "items",
    [(), ("",), (None,), (None, None), ("a", None, 'q"u\\o{t,e}'), ("é\u2028𝄞", "NULL", "null"), ("x" * 1_000_000,)],
)
def test_text_arrays_arrive_in_the_database_as_they_are(database_url: str, items: tuple[str | None, ...]) -> None:
    """Also none at all, and nothing but nulls."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT %s::text[], pg_typeof(%s)::text", (Texts(items), Texts(items))).fetchone()
    assert row == (list(items), "text[]")


def test_an_array_has_one_type_whatever_nulls_are_in_it() -> None:
    """Or each would be a prepared statement of its own."""
    dumpers = [Transformer().get_dumper(Texts(items), PyFormat.AUTO) for items in ((), (None,), ("a",), ("a", None))]
    assert {(dumper.oid, dumper.format) for dumper in dumpers} == {(1009, 1)}


def test_a_text_that_postgres_cannot_hold_is_refused(database_url: str) -> None:
    """As psycopg and Postgres do it."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        with pytest.raises(UnicodeEncodeError):
            connection.execute("SELECT %s", (Texts(("\ud800",)),))
        with pytest.raises(psycopg.errors.CharacterNotInRepertoire):
            connection.execute("SELECT %s", (Texts(("\x00",)),))


@pytest.mark.parametrize(
    ("kind", "item"),
    [
        *(("text", "é"), ("text", ""), ("integer", -(2**31)), ("bigint", 2**63 - 1)),
        *(("double precision", 0.1), ("boolean", True), ("boolean", False)),
    ],
)
def test_an_item_arrives_alone_as_it_does_in_an_array(database_url: str, kind: str, item: object) -> None:
    """A batch of one row sends it by itself."""
    array = ARRAYS[f"{kind}[]"]
    with psycopg.connect(database_url) as connection:
        result = connection.pgconn.exec_params(
            f"SELECT $1 = ($2)[1] AND $1 = '{item}'::{kind}".encode(),
            *([*dump_values([array], [item]), array.dump([item])], [array.item_oid, array.oid], [1, 1]),
        )
    assert result.get_value(0, 0) == b"t"


@pytest.mark.parametrize(("kind", "item"), [("integer", 2**31), ("bigint", 2**63)])
def test_a_number_that_its_column_type_cannot_hold_is_refused(kind: str, item: int) -> None:
    """Alone, and in an array."""
    array = ARRAYS[f"{kind}[]"]
    with pytest.raises(OverflowError):
        dump_values([array], [item])
    with pytest.raises(OverflowError):
        array.dump([item])


@pytest.mark.parametrize("kind", ["text", "integer", "bigint", "double precision", "boolean"])
def test_equal_items_are_written_as_different_ones_are(kind: str) -> None:
    """Of equal ones only the first is encoded."""
    array = ARRAYS[f"{kind}[]"]
    item: object = "é" if kind == "text" else 1
    for items in ([item], [item] * 3, [item, None, item], [None, item]):
        assert array.dump_column(items) == array.dump(items)
    assert array.dump_column([None, None]) is None
