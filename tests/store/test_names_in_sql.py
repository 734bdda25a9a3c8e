"""What SQL knows of names and kinds that the runtime writes: it says the same in the same words, wherever it does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import psycopg
import pytest

from dbosflow._records.keys import attempt_key, attempt_of, step_of
from dbosflow._records.kinds import RecordKind
from dbosflow._records.producers import RESUMED, of_all_attempts
from dbosflow._store import statements
from dbosflow.types import FrameKind

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLES = ("batch", "retention", "step", "stream", "worker", "workflow")

COMMITTED = re.compile(
    r"EXISTS \( SELECT FROM dbosflow\.step s WHERE s\.workflow_id = \w+\.workflow_id "
    r"AND s\.key = left\((?P<block>\w+)\.producer, -length\((?P=block)\.attempt\) - 1\) "
    rf"AND s\.kind = '{RecordKind.STEP}' AND s\.error IS NULL "
    rf"AND (?P=block)\.attempt IN \(s\.attempt, '{re.escape(RESUMED)}'\)\)"
)
"""Whether a record commits what an attempt has written: see ``stream_block`` in ``schema.sql``."""


def written() -> Iterator[tuple[str, str]]:
    for table in TABLES:
        for name, text in statements.source(table).items():
            yield f"{table}: {name}", " ".join(re.sub(r"--[^\n]*", "", text).split())


def test_whether_a_record_commits_a_block_is_asked_in_the_same_words_everywhere() -> None:
    """If a reader, a replay and a trim disagreed, one would show what is rolled back, or drop what counts."""
    cuts = {where: text.count(".producer, -length(") for where, text in written()}
    asked = {where: len(COMMITTED.findall(text)) for where, text in written()}
    assert asked == cuts
    assert {where for where, count in asked.items() if count} == {
        *("step: history", "stream: fetch", "stream: backwards", "stream: list", "retention: trim"),
    }


def test_the_kinds_in_statements_are_kinds() -> None:
    for where, text in written():
        literals = re.findall(r"\bkind (?:=|<>) '(\w+)'", text)
        literals += [
            one for some in re.findall(r"\bkind (?:NOT )?IN \(([^)]*)\)", text) for one in some.split("'")[1::2]
        ]
        assert set(literals) <= {*RecordKind, *FrameKind}, where


@pytest.mark.parametrize(
    "producer",
    [
        *(attempt_key("work#0", "1.1"), attempt_key("a#0/loop#1/17", "12.305"), of_all_attempts("region/work#0")),
        attempt_key("w%40rk %2F é#0", "1.1"),
    ],
)
def test_postgres_cuts_an_attempts_name_where_python_does(database_url: str, producer: str) -> None:
    with psycopg.connect(database_url) as connection:
        cut = "SELECT left(producer, -length(attempt) - 1) FROM (VALUES (%s::text, %s::text)) AS b (producer, attempt)"
        assert connection.execute(cut, (producer, attempt_of(producer))).fetchone() == (step_of(producer),)
