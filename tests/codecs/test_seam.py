"""Every place where a payload enters or leaves a statement is known. A new one has to pass the codecs, too."""

from __future__ import annotations

import re
from collections import Counter
from importlib.resources import files

from dbosflow import Engine
from dbosflow._store.payloads import COLUMNS
from dbosflow._store.reencryption import BEFORE_ALL
from tests.behaviour.tables import rows
from tests.codecs.keys import PAYLOADS

SQL = files("dbosflow._store").joinpath("sql")
ENTRIES = {
    "batch": {"of starts, outcomes, records, blocks, inputs, ends and continuations": 10},
    "dedup": {"inputs": 2},
    "fork": {"output of the step": 1},
    "message": {"values": 2, "payload": 1},
    "outbox": {"payload, twice": 2, "items, whose inputs `engine_outbox.sealed` has made": 1},
    "reencryption": {"what `renewed` has made": 9},
    "retention": {"values of merged blocks, which are as they were": 1},
    "schedule": {"inputs of ticks, and input of add and of change": 3},
    "standalone": {"values of append, of add": 2},
    "stream": {"values": 2},
    "workflow": {"inputs, message_values": 2, "error of put_off, which is no payload": 1},
}
"""How often each file casts what is bound, or read from such a row, to json on its way to the column of a payload."""
NO_PAYLOADS = {"input_streams", "attributes", "schedules", "weights"}
"""What is cast to json and is no payload."""
OTHER_TEXTS = {"request", "producer", "record", "other", *(f"stored_{column}" for column in COLUMNS)}
"""What is read as text from json and decoded by hand, or is no payload: a request to end, a name, a token's record."""

NO_PAYLOAD_COLUMNS = {
    *(("workflow", column) for column in ("keys", "attributes")),
    *(("outbox", "attributes"), ("outbox_start", "request"), ("worker", "schedules"), ("schedule", "attributes")),
    ("queue", "weights"),
}
"""Names, times and settings; attributes, by which people search."""
_JSON_COLUMNS = """
    SELECT c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE c.relnamespace = 'dbosflow'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
      AND a.atttypid IN ('json'::regtype, 'jsonb'::regtype)"""

_CAST = re.compile(r"(?:\b\w+\.|:)?\b(\w+)(?:::text)?::json\b|CAST\(CAST\(:(\w+) AS text\) AS json\)")
_READ = re.compile(r"\b(?:input|output|error|values|payload)::text(?: END)?(?: AS (\w+))?")


def statements() -> dict[str, str]:
    """The text of each file, without comments."""
    return {
        path.name.removesuffix(".sql"): re.sub(r"--.*", "", path.read_text("utf-8"))
        for path in SQL.iterdir()
        if path.name.endswith(".sql") and path.name != "schema.sql"
    }


def test_every_payload_that_enters_a_statement_is_known() -> None:
    """If this fails: use ``sealed`` or ``sealed_values`` of ``_store/payloads.py`` where the value is bound."""
    found: Counter[str] = Counter()
    for name, text in statements().items():
        casts = [cast[0] or cast[1] for cast in _CAST.findall(text)]
        found[name] = sum(cast not in NO_PAYLOADS for cast in casts)
    assert +found == Counter({name: sum(places.values()) for name, places in ENTRIES.items()})


def test_every_payload_that_leaves_a_statement_has_a_name_by_which_it_is_decoded() -> None:
    """If this fails: let the column be named ``input``, ``output``, ``error``, ``values``, ``value`` or ``payload``."""
    names = {name for text in statements().values() for name in _READ.findall(text) if name}
    assert names - OTHER_TEXTS <= COLUMNS
    assert {"input", "output", "error", "values", "value", "payload"} == COLUMNS


async def test_every_column_that_holds_json_is_rewritten_under_a_new_key_or_holds_no_payload(database_url: str) -> None:
    """If this fails: add the table to ``reencryption.sql``, and the column to ``tests/codecs/keys.py``."""
    async with Engine(database_url, executes=False):
        found = set(rows(database_url, _JSON_COLUMNS))
    payloads = {(table, column) for table, columns in PAYLOADS.items() for column in columns}
    assert found - payloads == NO_PAYLOAD_COLUMNS
    assert {table for table, _ in payloads} <= BEFORE_ALL.keys()
