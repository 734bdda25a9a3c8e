"""The journal's statement: rows of many runs in, one round trip, one WAL flush, written whole or not at all."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from dbosflow._store import statements
from dbosflow._store.arrays import ARRAYS, ArrayType, dump_values
from dbosflow._store.queries import fetch_all
from dbosflow._store.wire import Statement, execute

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from uuid import UUID

    from psycopg import AsyncConnection

_SECTION = re.compile(r"^-- \[(\w+)\n(.*?)^-- \]\n", re.MULTILINE | re.DOTALL)

_CAST = re.compile(r":(\w+)::(\w+(?: precision)?\[\])")
_UNNEST = re.compile(r"unnest\((:\w+::\w+(?: precision)?)\[\]\)")
_CARDINALITY = re.compile(r"cardinality\(:\w+::text\[\]\)")
_WRITING = re.compile(r"^, \w+ AS \(\n(\s+(?:INSERT|UPDATE).*?)^\)$", re.MULTILINE | re.DOTALL)
_UUID = 2950
"""The type id of the worker's."""
_TEXT = 25
_TIMELINE = "timeline"
"""The section that guards a batch against another timeline than the one that is given."""
_NOBODY: frozenset[str] = frozenset()

_COLUMNS: dict[str, dict[str, tuple[str, ...]]] = {
    "runs": {"run": ("ids", "epochs")},
    "starts": {
        "start": (
            "ids",
            "names",
            "queues",
            "priorities",
            "inputs",
            "parent_ids",
            "parent_keys",
            "input_streams",
            "owned",
        )
    },
    "records": {
        "record": (
            *("ids", "keys", "kinds", "epochs", "seqs", "turns", "attempts", "outputs", "errors", "children"),
            *("delays", "elapsed", "loop_keys", "loop_offsets", "loop_nexts"),
        )
    },
    "blocks": {
        "tail": ("ids", "keys", "offsets"),
        "block": (
            *("ids", "keys", "offsets", "counts", "kinds", "values", "bytes", "producers", "producer_seqs"),
            *("attempts", "epochs", "checksums"),
        ),
    },
    "inputs": {"input": ("ids", "keys", "kinds", "values", "bytes", "epochs")},
    "ends": {"end": ("ids", "epochs", "statuses", "outputs", "errors")},
}
"""The parameters of each section, as the statement names them: ``<row>_<column>``."""


@cache
def _types() -> dict[str, ArrayType]:
    """The types of the parameters that are arrays, as the statement casts them."""
    return {name: ARRAYS[cast] for name, cast in _CAST.findall(statements.source("batch")["batch"])}


@dataclass(slots=True)
class BatchRows:
    """The rows of one batch, each a tuple in the order of its section's columns."""

    runs: list[tuple[str, int]] = field(default_factory=list)
    starts: list[tuple[Any, ...]] = field(default_factory=list)
    records: list[tuple[Any, ...]] = field(default_factory=list)
    tails: list[tuple[str, str, int]] = field(default_factory=list)
    blocks: list[tuple[Any, ...]] = field(default_factory=list)
    inputs: list[tuple[Any, ...]] = field(default_factory=list)
    ends: list[tuple[Any, ...]] = field(default_factory=list)
    aware: bool = False
    """Whether a run among them is being cancelled, and knows: it need not be notified."""

    def shape(self) -> tuple[str, ...]:
        """The sections that this batch has rows for."""
        return tuple([name for name in _COLUMNS if getattr(self, name)])

    def arrays(self) -> Iterator[tuple[Any, ...]]:
        """The columns of its rows, in the order of ``parameters``."""
        for section in self.shape():
            for row in _COLUMNS[section]:
                yield from zip(*getattr(self, f"{row}s"), strict=True)

    def values(self) -> list[Any]:
        """The only row of each section, its values in the order of ``parameters``."""
        return [value for rows in self._in_order() for row in rows for value in row]

    @property
    def single(self) -> bool:
        """Whether each section has one row: a batch of one record, one value, one start or one end."""
        return max(map(len, self._in_order())) == 1

    def _in_order(self) -> tuple[Sequence[tuple[Any, ...]], ...]:
        """All rows, as ``parameters`` has them."""
        return self.runs, self.starts, self.records, self.tails, self.blocks, self.inputs, self.ends


@cache
def parameters(shape: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the statement's parameters but for ``worker_id``: the arrays of the sections in the shape."""
    rows = (row for section in shape for row in _COLUMNS[section].items())
    return tuple(f"{row}_{column}" for row, columns in rows for column in columns)


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What the statement says: whether the worker lives, whether it was written, and if not, whose fault that is."""

    leased: bool
    written: bool
    started: frozenset[str]
    mine: frozenset[str] = _NOBODY
    moved: frozenset[str] = _NOBODY
    cancelled: frozenset[str] = _NOBODY
    """The runs that somebody has asked to cancel, whether the batch was written or not."""
    timeline: str | None = None
    """The server's, if it sent one."""


@cache
def batch_statement(shape: tuple[str, ...], schema: str, *, single: bool = False) -> str:
    """The batch statement with only the sections of ``shape``.

    If ``single``, with a plain value in the place of each array: for one row of each section the server takes a sixth
    less time, since it sets up no node that unnests.
    """
    text = _of_shape("batch", shape)
    if single:
        text = _CARDINALITY.sub("1", _UNNEST.sub(r"\1", text))
    return statements.prepare(text, schema)


@cache
def lone_statement(shape: tuple[str, ...], schema: str) -> str | None:
    """What the batch statement comes down to for one row in the one section that writes; ``None`` if several do.

    It writes its row, or none if the gate is shut. The server takes a tenth to a fifth less time again.
    """
    writing = _WRITING.findall(_of_shape("batch", shape))
    if len(writing) != 1:
        return None
    gate = statements.prepare(_of_shape("lone_gate", shape), schema)
    text = statements.prepare(_UNNEST.sub(r"\1", writing[0]), schema)
    return text.replace("CROSS JOIN gate", f"CROSS JOIN ({gate}) AS gate")


def _of_shape(name: str, shape: tuple[str, ...]) -> str:
    """A statement of ours with only the sections of ``shape``."""
    return _SECTION.sub(lambda section: section[2] if section[1] in shape else "", statements.source("batch")[name])


@dataclass(frozen=True, slots=True)
class _Forms:
    """The statement of one shape as the wire takes it, with the same parameters in each form."""

    types: tuple[ArrayType, ...]
    arrays: Statement
    single: Statement
    lone: Statement | None


@cache
def _forms(shape: tuple[str, ...], schema: str) -> _Forms:
    names = parameters(tuple(section for section in shape if section != _TIMELINE))
    others = {"worker_id": _UUID} | ({"timeline": _TEXT} if _TIMELINE in shape else {})
    types = tuple(_types()[name] for name in names)

    def on_wire(form: str, text: str, oids: Iterable[int]) -> Statement:
        name = "_".join((form, *shape))
        return Statement(
            name.encode(), statements.numbered(text, (*others, *names)).encode(), (*others.values(), *oids)
        )

    items = [one.item_oid for one in types]
    lone = lone_statement(shape, schema)
    return _Forms(
        types,
        on_wire("dbosflow_batch", batch_statement(shape, schema), [one.oid for one in types]),
        on_wire("dbosflow_batch_one", batch_statement(shape, schema, single=True), items),
        on_wire("dbosflow_batch_lone", lone, items) if lone is not None else None,
    )


async def write_batch(
    connection: AsyncConnection[Any], rows: BatchRows, worker_id: UUID, schema: str, timeline: str | None = None
) -> BatchResult:
    """Sends one batch, which is not written on another ``timeline``.

    A single row goes alone; if that is not written, all that guards it is asked why not, and may still write it.

    Raises what psycopg raises; then nothing is known of it until a witness is asked for.
    """
    shape = rows.shape() if timeline is None else (_TIMELINE, *rows.shape())
    forms, prepare = _forms(shape, schema), connection.prepare_threshold is not None
    values: list[bytes | None] = [worker_id.bytes] if timeline is None else [worker_id.bytes, timeline.encode()]
    if rows.single:
        values += dump_values(forms.types, rows.values())
        lone = None if rows.aware else forms.lone
        if lone is not None and (await execute(connection, lone, values, prepare=prepare)).command_tuples:
            return BatchResult(leased=True, written=True, started=_all_started(rows))
        result = await execute(connection, forms.single, values, prepare=prepare)
    else:
        for kind, items in zip(forms.types, rows.arrays(), strict=True):
            # ``unnest`` fills up with nulls what is NULL as a whole: that are most columns of most batches.
            values.append(None if items.count(None) == len(items) else kind.dump(items))
        result = await execute(connection, forms.arrays, values, prepare=prepare)
    row = {result.fname(column): result.get_value(0, column) for column in range(result.nfields)}
    started, timeline_found = row.get(b"started"), row.get(b"timeline")
    return BatchResult(
        leased=row[b"leased"] == b"t",
        written=row[b"written"] == b"t",
        mine=_ids(row.get(b"mine")),
        moved=_ids(row.get(b"moved")),
        cancelled=_ids(row.get(b"cancelled")),
        started=_all_started(rows) if started is None else _ids(started),
        timeline=None if timeline_found is None else timeline_found.decode(),
    )


def _all_started(rows: BatchRows) -> frozenset[str]:
    return frozenset([start[0] for start in rows.starts]) if rows.starts else _NOBODY


def _ids(text: bytes | None) -> frozenset[str]:
    return frozenset(json.loads(text)) if text else _NOBODY


async def is_durable(connection: AsyncConnection[Any], rows: BatchRows, worker_id: UUID, schema: str) -> bool:
    """Whether this batch was committed, by one row that only it can have written; and durable, if it was.

    One statement is all or nothing, so one row of it tells. A batch of nothing but starts has no such row and needs
    none: sending it again is harmless.
    """
    values: dict[str, Any]
    if rows.records:
        workflow_id, key, _, epoch = rows.records[0][:4]
        name, values = "witness_record", {"workflow_id": workflow_id, "key": key, "epoch": epoch}
    elif rows.blocks:
        workflow_id, key, offset = rows.blocks[0][:3]
        name = "witness_block"
        values = {"workflow_id": workflow_id, "key": key, "offset": offset, "epoch": rows.blocks[0][-2]}
    elif rows.ends:
        workflow_id, epoch = rows.ends[0][:2]
        name, values = "witness_end", {"workflow_id": workflow_id, "epoch": epoch}
    else:
        return False
    return bool(await fetch_all(connection, schema, "batch", name, worker_id=worker_id, **values))
