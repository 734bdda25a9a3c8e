"""The table ``step``, and a run's whole history: its records and what its producers have durable."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dbosflow._store.queries import fetch_all
from dbosflow._store.workflow import parsed
from dbosflow.types import StepInfo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import AsyncConnection

_TABLE = "step"


@dataclass(frozen=True, slots=True)
class Recorded:
    """One durable record, as a replay reads it. Payloads are JSON text."""

    key: str
    kind: str
    seq: int
    turn: int
    attempt: str | None
    output: str | None
    error: str | None
    child_id: str | None
    remaining: float | None
    """Seconds until its ``wake_at``, by the database's clock when the history was read."""
    age: float
    """Seconds since it was recorded, by the same clock."""


@dataclass(slots=True)
class History:
    """What a run replays. Empty for a workflow that never ran."""

    records: dict[str, Recorded] = field(default_factory=dict)
    failures: dict[str, list[Recorded]] = field(default_factory=dict)
    """The failed attempts of each step, by its key, oldest first."""
    produced: dict[tuple[str, str], int] = field(default_factory=dict)
    """Durable values by stream key and producer."""
    values: dict[str, int] = field(default_factory=dict)
    """Values ever written by stream key."""
    bytes: dict[str, int] = field(default_factory=dict)
    """Their size by stream key: of each as JSON, and one more."""
    tails: dict[str, int] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    undecided: list[tuple[str, str, int, int]] = field(default_factory=list)
    """What attempts wrote that no record has decided: producer, stream key, offset and count of each block."""

    @property
    def next_place(self) -> tuple[int, int]:
        """The ``seq`` and the ``turn`` of the next record."""
        seqs = (record.seq for record in self.records.values())
        turns = (record.turn for record in self.records.values())
        return max(seqs, default=-1) + 1, max(turns, default=-1) + 1


async def histories(connection: AsyncConnection[Any], schema: str, ids: Sequence[str]) -> dict[str, History]:
    """The histories of these workflows, in one query."""
    found = {workflow_id: History() for workflow_id in ids}
    for row in await fetch_all(connection, schema, _TABLE, "history", ids=list(ids)):
        history = found[row["workflow_id"]]
        if row["part"] == "record":
            names = ("key", "kind", "seq", "turn", "attempt", "output", "error", "child_id", "remaining", "age")
            record = Recorded(**{name: row[name] for name in names})
            if record.kind == "attempt":
                history.failures.setdefault(record.key.rpartition("@")[0], []).append(record)
            history.records[record.key] = record
        elif row["part"] == "undecided":
            history.undecided.append((row["producer"], row["key"], row["tail"], row["count"]))
        else:
            _count_written(history, row)
    for history in found.values():
        history.undecided.sort()
        for failures in history.failures.values():
            failures.sort(key=lambda record: record.seq)
    return found


def _count_written(history: History, row: dict[str, Any]) -> None:
    """What a producer has in a stream, or had in what was trimmed from it."""
    key, producer = row["key"], row["producer"]
    history.produced[key, producer] = history.produced.get((key, producer), 0) + row["count"]
    history.values[key] = history.values.get(key, 0) + row["count"]
    history.bytes[key] = history.bytes.get(key, 0) + row["bytes"]
    if row["part"] == "producer":
        history.tails[key] = max(row["tail"], history.tails.get(key, 0))
        if row["kind"] is not None:
            history.closed.add(key)


async def list_steps(connection: AsyncConnection[Any], schema: str, workflow_id: str) -> list[StepInfo]:
    """A workflow's records in the order they were made."""
    rows = await fetch_all(connection, schema, _TABLE, "list", workflow_id=workflow_id)
    return [StepInfo(**{**row, "output": parsed(row["output"]), "error": parsed(row["error"])}) for row in rows]
