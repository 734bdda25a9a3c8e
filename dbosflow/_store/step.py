"""The table ``step``, and a run's whole history: its records, and what its producers have made durable."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from dbosflow._records.keys import GIVEN, GIVEN_UP, WOKEN, child_id, iteration_of, step_of
from dbosflow._records.kinds import STEPS, RecordKind
from dbosflow._store import statements
from dbosflow._store.carried import NOTHING_CARRIED, Carried
from dbosflow._store.payloads import parsed, parsed_error
from dbosflow._store.queries import fetch_all, fetch_named, fetch_text
from dbosflow.types import StepInfo
from dbosflow.unreadable import Unreadable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import AsyncConnection

    from dbosflow._store.queries import Rows
    from dbosflow.errors import CodecError

_TABLE = "step"


class Recorded(NamedTuple):
    """One durable record for a replay. Payloads are JSON text."""

    key: str
    kind: str
    seq: int
    turn: int
    attempt: str | None
    output: str | None
    error: str | None
    child_id: str | None
    remaining: float | None
    """Seconds until ``wake_at``, by the database's clock at the time when the history was read."""
    age: float
    """Seconds since the record was made, by the same clock."""
    epoch: int = 0
    """The epoch of the run that made the record."""
    foreign: str | None = None
    """For a child: the name of the workflow under its id, if another caller started that."""


@dataclass(slots=True)
class LoopHistory:
    """The records of a loop: its totals, and the items that its watermark, ``next``, does not supersede."""

    next: int = 0
    """Every item before this offset is done."""
    done: int = 0
    failed: int = 0
    last: int | None = None
    """The greatest offset that is done."""
    finished: set[int] = field(default_factory=set)
    """The offsets of finished items from the watermark on."""
    unfit: set[int] = field(default_factory=set)
    """Those of them that were never handled, because they were not of the handler's type."""
    failures: dict[int, list[Recorded]] = field(default_factory=dict)
    """The failed attempts of unfinished items, by offset, oldest first."""


@dataclass(slots=True)
class History:
    """The records that a run replays: those of the current iteration. Empty for a workflow that never ran."""

    records: dict[str, Recorded] = field(default_factory=dict)
    failures: dict[str, list[Recorded]] = field(default_factory=dict)
    """The failed attempts of each step, by its key, oldest first."""
    produced: dict[tuple[str, str], int] = field(default_factory=dict)
    """The number of durable values by stream key and producer."""
    checksums: dict[tuple[str, str], int | None] = field(default_factory=dict)
    """The checksums of these values; ``None`` if older code has written some of them."""
    values: dict[str, int] = field(default_factory=dict)
    """The number of values ever written, by stream key."""
    bytes: dict[str, int] = field(default_factory=dict)
    """Their size in bytes of JSON plus one for each value, by stream key."""
    tails: dict[str, int] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    loops: dict[str, LoopHistory] = field(default_factory=dict)
    """The histories of `for_each` loops, by the loops' keys."""
    last_seq: int = -1
    last_turn: int = -1
    uncommitted: list[tuple[str, str, int, int]] = field(default_factory=list)
    """The uncommitted blocks of attempts: producer, stream key, offset and count of each."""
    forked_turn: int | None = None
    """For a fork: the turn from which it goes on by itself. The records before it are copies."""
    iteration: int = 0
    """How often the workflow was continued as new."""
    arguments: str | None = None
    """The arguments of a later iteration than the first, as JSON."""
    carried: Carried = NOTHING_CARRIED
    """What the iteration before has handed on."""
    unreadable: CodecError | None = None
    """Why one of the payloads cannot be decoded here."""
    read_for: float = 0.0
    """Seconds that the query took, together with those of others."""

    def is_copied(self, record: Recorded | None) -> bool:
        """Whether a record, or that of a loop that is not over (``None``), may be a copy that came with a fork.

        Copies may name other workflows than the fork's code: those whose ids follow from the id of the original.
        """
        if self.forked_turn is None:
            return False
        return record is None or record.turn < self.forked_turn or record.attempt == GIVEN

    @property
    def next_place(self) -> tuple[int, int]:
        """The ``seq`` and the ``turn`` of the next record."""
        records = self.records.values()
        if not records:
            return self.last_seq + 1, self.last_turn + 1
        seq = max(self.last_seq, *(record.seq for record in records), -1)
        return seq + 1, max(self.last_turn, *(record.turn for record in records), -1) + 1


NO_HISTORY = History()
"""The history of a workflow that begins. Histories are never changed."""


async def histories(connection: AsyncConnection[Any], schema: str, ids: Sequence[str]) -> dict[str, History]:
    """The histories of these workflows, in one query."""
    found, began = {workflow_id: History() for workflow_id in ids}, time.monotonic()
    for row in await fetch_named(connection, schema, _TABLE, "history", ids=list(ids)):
        history = found[row.workflow_id]
        if row.seq is not None:
            history.last_seq = max(history.last_seq, row.seq)
            history.last_turn = max(history.last_turn, row.turn)
        for text in (row.output, row.error):
            if isinstance(text, Unreadable):
                history.unreadable = text.error
        _PARTS[row.part](history, row)
    for history in found.values():
        _begin_with(history, history.carried)
        history.uncommitted.sort()
        history.read_for = time.monotonic() - began
        failures: list[dict[Any, list[Recorded]]] = [history.failures]
        failures += (loop.failures for loop in history.loops.values())
        for attempts in (attempts for steps in failures for attempts in steps.values()):
            attempts.sort(key=lambda record: record.seq)
    return found


def _add_record(history: History, row: Any) -> None:
    record = _recorded(row)
    if record.kind == RecordKind.CONTINUED:
        history.carried = Carried.of(record.output)
        return
    if record.kind == RecordKind.ATTEMPT:
        history.failures.setdefault(step_of(record.key), []).append(record)
    history.records[record.key] = record


def _add_loop(history: History, row: Any) -> None:
    loop = history.loops.setdefault(row.key, LoopHistory())
    loop.next = row.tail
    loop.done, loop.failed, loop.last = json.loads(row.output).values()


def _add_item(history: History, row: Any) -> None:
    loop = history.loops.setdefault(row.child_id, LoopHistory())
    if row.kind == RecordKind.STEP:
        loop.finished.add(row.tail)
        if row.attempt is None:
            loop.unfit.add(row.tail)
    else:
        loop.failures.setdefault(row.tail, []).append(_recorded(row))


def _add_uncommitted(history: History, row: Any) -> None:
    history.uncommitted.append((row.producer, row.key, row.tail, row.count))


def _add_producer(history: History, row: Any) -> None:
    """Adds what a producer has in a stream, or had in a part that was trimmed."""
    key, producer = row.key, row.producer
    history.produced[key, producer] = history.produced.get((key, producer), 0) + row.count
    history.values[key] = history.values.get(key, 0) + row.count
    history.bytes[key] = history.bytes.get(key, 0) + row.bytes
    if row.count and row.part == "producer":
        history.checksums[key, producer] = row.checksum
    elif row.part == "trimmed":  # it only matters if nothing else is left
        history.checksums.setdefault((key, producer), row.checksum)
    if row.part == "producer":
        history.tails[key] = max(row.tail, history.tails.get(key, 0))
        if row.kind is not None:
            history.closed.add(key)


def _add_workflow(history: History, row: Any) -> None:
    history.forked_turn, history.iteration, history.arguments = row.tail, row.count or 0, row.output


def _begin_with(history: History, carried: Carried) -> None:
    """Adds what an iteration has got from the one before, to what it has made of that by itself."""
    for key, (tail, values, size) in carried.streams.items():
        history.tails.setdefault(key, tail)
        history.values[key] = history.values.get(key, 0) + values
        history.bytes[key] = history.bytes.get(key, 0) + size
    for key, (tail, values, size) in carried.closed.items():
        history.tails[key], history.values[key], history.bytes[key] = tail, values, size
        history.closed.add(key)


def continued(iteration: int, arguments: str, carried: Carried, place: tuple[int, int]) -> History:
    """The history of an iteration that begins: its first record has the ``seq`` and the ``turn`` of ``place``."""
    seq, turn = place
    history = History(last_seq=seq - 1, last_turn=turn - 1)
    history.iteration, history.arguments, history.carried = iteration, arguments, carried
    _begin_with(history, carried)
    return history


_PARTS = {
    "workflow": _add_workflow,
    "record": _add_record,
    "loop": _add_loop,
    "item": _add_item,
    "uncommitted": _add_uncommitted,
    "producer": _add_producer,
    "trimmed": _add_producer,
}


def _recorded(row: Any) -> Recorded:
    return Recorded(
        *(row.key, row.kind, row.seq, row.turn, row.attempt, row.output, row.error, row.child_id, row.remaining),
        age=row.age,
        epoch=row.epoch,
        foreign=None if row.producer is None else _foreign(row),
    )


def _foreign(row: Any) -> str | None:
    """The name of the workflow under a child's id, unless the workflow that a fork was made of has started it there."""
    name, parent_id, parent_key = json.loads(row.producer)
    if parent_id is not None and parent_key == row.key and child_id(parent_id, parent_key) == row.child_id:
        return None
    return str(name)


async def collected(connection: AsyncConnection[Any], schema: str, workflow_id: str, loop_key: str) -> list[str]:
    """The handler's results for each item of a loop, as JSON."""
    rows = await fetch_all(connection, schema, _TABLE, "collected", workflow_id=workflow_id, loop_key=loop_key)
    return [row["output"] or "null" for row in rows]


async def list_steps(connection: AsyncConnection[Any], schema: str, workflow_id: str) -> list[StepInfo]:
    """A workflow's records in the order in which they were made."""
    return await step_page(connection, schema, workflow_id, place=BEFORE_ALL, limit=None)


BEFORE_ALL = (-1, -1)
"""The place before a workflow's first record: a turn and a ``seq``."""


async def step_page(
    connection: AsyncConnection[Any],
    schema: str,
    workflow_id: str,
    *,
    place: tuple[int, int],
    limit: int | None,
    outputs: bool = True,
) -> list[StepInfo]:
    """A workflow's records after a place, in the order in which they were made, up to ``limit``."""
    text = statements.load(_TABLE, schema, *(("outputs",) if outputs else ()))["page"]
    which = {"workflow_id": workflow_id, "turn": place[0], "seq": place[1], "limit": limit}
    over = {"suffixes": [WOKEN, GIVEN_UP], "over_kinds": [RecordKind.WOKEN, RecordKind.GIVEN_UP]}
    rows = await fetch_text(connection, schema, text, which | over)
    attempts = _Attempts()
    if any(row["attempt"] for row in rows):
        attempts.add(await fetch_all(connection, schema, _TABLE, "attempts", workflow_id=workflow_id))
    return [_step_info(row, attempts) for row in rows]


class _Attempts:
    """The failed attempts of a workflow's steps, by which its records are numbered."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._failed: Counter[str] = Counter()
        self._done: set[str] = set()

    def add(self, rows: Rows) -> None:
        """Adds them, in the order in which they were made."""
        for row in rows:
            step_key = step_of(row["key"])
            self._failed[step_key] += 1
            self._numbers[row["key"]] = self._failed[step_key]
            if row["is_done"]:
                self._done.add(step_key)

    def of(self, key: str, kind: str) -> tuple[int, int | None]:
        """The number of the attempt on record under a key, and how many the step has taken, if it is over."""
        if kind != RecordKind.ATTEMPT:
            return self._failed[key] + 1, self._failed[key] + 1 if kind in STEPS else None
        step_key = step_of(key)
        return self._numbers.get(key, 1), self._failed[step_key] + 1 if step_key in self._done else None


def _step_info(row: dict[str, Any], attempts: _Attempts) -> StepInfo:
    row = {"output": None, **row}
    over_at, until = row.pop("over_at"), row["recorded_at"]
    if row["wake_at"] is not None and row["kind"] != RecordKind.ATTEMPT:
        until = over_at or row["wake_at"]
    row |= {"output": parsed(row["output"]), "error": parsed_error(row["error"])}
    row["duration"] = (until - row["started_at"]).total_seconds()
    if row["attempt"]:
        row["number"], row["attempts"] = attempts.of(row["key"], row["kind"])
    return StepInfo(**row, iteration=iteration_of(row["key"]))
