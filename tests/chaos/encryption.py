"""Encryption of everything that a run stores; its checkers, which look at the tables, see what engines see."""

from __future__ import annotations

import json
import os
from functools import partial
from typing import TYPE_CHECKING, Any

from psycopg.types.json import set_json_loads

from dbosflow._store.payloads import unsealed
from dbosflow.codecs import ENCRYPTION_KEYS_VARIABLE, generate_key
from dbosflow.codecs.chain import Codecs
from tests.codecs.keys import plain_payloads

if TYPE_CHECKING:
    from collections.abc import Iterator

_WORDS = {"error", "cancelled", "rollback", "continued", "pin"}
"""Kinds of rows that SQL may write, or read: words of the engine, and no payload."""


def begin() -> None:
    """Has the engines of this process, and of all that it starts, encrypt with a new key."""
    os.environ[ENCRYPTION_KEYS_VARIABLE] = f"chaos:{generate_key()}"
    set_json_loads(partial(_loaded, Codecs.checked(None)))


def _loaded(codecs: Codecs, text: str | bytes) -> Any:
    return json.loads(unsealed(codecs, text if isinstance(text, str) else text.decode()) or "")


def in_plain_text(url: str) -> Iterator[str]:
    """The payloads that are not encrypted, though they should be."""
    if ENCRYPTION_KEYS_VARIABLE in os.environ:
        for table, column, kind, text in plain_payloads(url):
            if column != "error" and kind not in _WORDS:
                yield f"{table}.{column} {kind} is in plain text: {text[:80]}"
