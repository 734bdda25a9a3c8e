"""Crash points: durable records by name, found again in whatever statement carries them.

Group commit packs a run's records into other statements each time, so no point is a statement's number. A point is what
is made durable: which workflow's, and under which key.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, LiteralString, NamedTuple

import psycopg

from dbosflow._store.batch_rows import BatchRows, RecordRow

if TYPE_CHECKING:
    from collections.abc import Iterator

_SEPARATOR = " | "
_COUNTED = "values"


class How(StrEnum):
    """What goes wrong at a point."""

    UNSENT = "unsent"
    """The process dies before the statement is sent."""
    SENT = "sent"
    """It dies with the statement on the wire: committed or not."""
    COMMITTED = "committed"
    """It dies after the commit, before the answer comes."""
    UNANSWERED = "unanswered"
    """Nobody dies: the statement is committed, and the connection breaks before the answer."""
    CUT = "cut"
    """Nobody dies: the connection breaks with the statement on the wire."""

    @property
    def deadly(self) -> bool:
        """Whether the process dies of it."""
        return self in {How.UNSENT, How.SENT, How.COMMITTED}


class Point(NamedTuple):
    """What becomes durable: a start, a claim, a record, a block, an end, a suspension, a wake-up, a request ..."""

    what: str
    workflow: str
    key: str = ""

    def within(self, run: str) -> Point:
        """The same point of the workflows of one run: their ids begin with the run's name."""
        return self._replace(workflow=f"{run}.{self.workflow}" if self.workflow else "")

    def of_any_run(self) -> Point:
        """It without the name of the run that it was seen in."""
        return self._replace(workflow=self.workflow.partition(".")[2])

    def __str__(self) -> str:
        return f"{self.what} {self.workflow} {self.key}".rstrip()


def block(workflow_id: str, key: str, kind: str, producer: str, place: int) -> Point:
    """A frame of a stream, by its producer's own count; the packing into blocks differs each time."""
    return Point("block", workflow_id, _SEPARATOR.join((key, kind, producer, str(place if kind == _COUNTED else 0))))


def of_batch(rows: BatchRows) -> Iterator[Point]:
    """The points that one statement of the journal carries."""
    for workflow_id, *_ in rows.starts:
        yield Point("start", workflow_id)
    for (workflow_id, *_), (status, *_) in zip(rows.starts, rows.outcomes, strict=False):
        if status is not None:
            yield Point("end", workflow_id)
    for record in map(RecordRow._make, [*rows.records, *rows.first_records]):
        yield Point("record", record.workflow_id, record.key)
    for row in [*rows.blocks, *rows.first_blocks]:
        for place in range(row.producer_seq, row.producer_seq + (row.value_count if row.kind == _COUNTED else 1)):
            yield block(row.workflow_id, row.key, str(row.kind), row.producer, place)
    for closed in rows.inputs:
        yield block(closed.workflow_id, closed.key, str(closed.kind), "", 0)
    for workflow_id, *_ in rows.ends:
        yield Point("end", workflow_id)
    for suspended in rows.suspends:
        yield Point("suspend", suspended.workflow_id)


def of_transaction(rows: dict[str, Any]) -> Iterator[Point]:
    """The points that the last statement of a user's transaction carries."""
    (record,) = map(RecordRow._make, rows["record"])
    yield from of_batch(BatchRows(records=[record], blocks=list(rows.get("block", ()))))


def of_append(rows: list[tuple[Any, ...]]) -> Iterator[Point]:
    """The points that one statement of outside writers carries."""
    for workflow_id, key, _, kind, _, _, producer, *_ in rows:
        yield block(workflow_id, key, str(kind), producer if producer.startswith("k:") else "w:", 0)


def of_send(rows: list[tuple[Any, ...]]) -> Iterator[Point]:
    """The points that one statement of senders of messages carries."""
    for workflow_id, key, _, _, _, producer in rows:
        yield block(workflow_id, key, _COUNTED, _outsider(workflow_id, producer), 0)


def of_answer(values: dict[str, Any]) -> Iterator[Point]:
    """The point of an answer to a token."""
    yield block(values["workflow_id"], values["key"], values["kind"], _outsider("", values["producer"]), 0)


def _outsider(workflow_id: str, producer: str) -> str:
    """What an outside writer is called in every run: without a unique id, and without the name of the run."""
    return "w:" if producer.startswith("w:") else producer.replace(f"{workflow_id.partition('.')[0]}.", "")


_STORED: LiteralString = """
    SELECT 'start' AS what, id, '' AS key, '', '', 0 AS place, 1 AS count FROM dbosflow.workflow
    UNION ALL SELECT 'end', id, '', '', '', 0, 1 FROM dbosflow.workflow WHERE ended_at IS NOT NULL
    UNION ALL SELECT 'record', workflow_id, key, '', '', 0, 1 FROM dbosflow.step
    UNION ALL SELECT 'block', workflow_id, key, kind, producer, producer_seq, count
    FROM dbosflow.stream_block"""


def stored(url: str) -> set[Point]:
    """Every durable record that the database holds, as a point: what a sweep must have come by."""
    found: set[Point] = set()
    with psycopg.connect(url, autocommit=True, application_name="looking") as connection:
        for what, workflow_id, key, kind, producer, place, count in connection.execute(_STORED, ()):
            if what != "block":
                found.add(Point(what, workflow_id, key))
                continue
            for number in range(place, place + (count if kind == _COUNTED else 1)):
                found.add(block(workflow_id, key, kind, _outsider(workflow_id, producer), number))
    return found
