"""The journal's statement: rows of many runs in, one round trip, one WAL flush, written whole or not at all."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from psycopg.rows import dict_row

from dbosflow._store import statements
from dbosflow._store.texts import Texts

if TYPE_CHECKING:
    from uuid import UUID

    from psycopg import AsyncConnection

_SECTION = re.compile(r"^-- \[(\w+)\n(.*?)^-- \]\n", re.MULTILINE | re.DOTALL)

_TEXT_ARRAY = re.compile(r":(\w+)::text\[\]")

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
            *("attempts", "epochs"),
        ),
    },
    "inputs": {"input": ("ids", "keys", "kinds", "values", "bytes", "epochs")},
    "ends": {"end": ("ids", "epochs", "statuses", "outputs", "errors")},
}
"""The parameters of each section, as the statement names them: ``<row>_<column>``."""


@cache
def _texts() -> frozenset[str]:
    """The parameters that are arrays of texts."""
    return frozenset(_TEXT_ARRAY.findall(statements.source("batch")["batch"]))


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

    def shape(self) -> tuple[str, ...]:
        """The sections that this batch has rows for."""
        return tuple(name for name in _COLUMNS if getattr(self, name))

    def parameters(self, worker_id: UUID) -> dict[str, Any]:
        """The arrays to bind, of the sections in the shape."""
        bound: dict[str, Any] = {"worker_id": worker_id}
        for section in self.shape():
            for row, columns in _COLUMNS[section].items():
                rows = self.tails if row == "tail" else getattr(self, section)
                arrays = zip(*rows, strict=True)
                for name, array in zip((f"{row}_{column}" for column in columns), arrays, strict=True):
                    bound[name] = Texts(array) if name in _texts() else list(array)
        return bound


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What the statement says: whether the lane lives, whether it was written, and if not, whose fault that is."""

    leased: bool
    written: bool
    mine: frozenset[str]
    moved: frozenset[str]
    started: frozenset[str]


@cache
def batch_statement(shape: tuple[str, ...], schema: str) -> str:
    """The batch statement with only the sections of ``shape``."""

    def keep(section: re.Match[str]) -> str:
        return section[2] if section[1] in shape else ""

    return statements.prepare(_SECTION.sub(keep, statements.source("batch")["batch"]), schema)


async def write_batch(connection: AsyncConnection[Any], rows: BatchRows, worker_id: UUID, schema: str) -> BatchResult:
    """Sends one batch. Raises what psycopg raises; then nothing is known of it until a witness is asked for."""
    shape = rows.shape()
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            statements.literal(batch_statement(shape, schema)),
            rows.parameters(worker_id),
            prepare=connection.prepare_threshold is not None,
        )
        row = await cursor.fetchone()
    assert row is not None
    return BatchResult(
        leased=row["leased"],
        written=row["written"],
        mine=frozenset(row.get("mine") or ()),
        moved=frozenset(row.get("moved") or ()),
        started=frozenset(row.get("started") or ()),
    )


async def is_durable(connection: AsyncConnection[Any], rows: BatchRows, schema: str) -> bool:
    """Whether this batch was committed, told by one row that only it can have written.

    One statement is all or nothing, so one row of it tells. A batch of nothing but starts has no such row and needs
    none: sending it again is harmless.
    """
    named = statements.load("batch", schema)
    if rows.records:
        workflow_id, key, _, epoch = rows.records[0][:4]
        statement, values = named["witness_record"], {"workflow_id": workflow_id, "key": key, "epoch": epoch}
    elif rows.blocks:
        workflow_id, key, offset = rows.blocks[0][:3]
        statement = named["witness_block"]
        values = {"workflow_id": workflow_id, "key": key, "offset": offset, "epoch": rows.blocks[0][-1]}
    elif rows.ends:
        workflow_id, epoch = rows.ends[0][:2]
        statement, values = named["witness_end"], {"workflow_id": workflow_id, "epoch": epoch}
    else:
        return False
    cursor = await connection.execute(statements.literal(statement), values)
    return await cursor.fetchone() is not None
