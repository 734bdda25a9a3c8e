"""The rows of the batch statement: one type a section, whose fields are the statement's parameters, in this order.

A field ``key`` of a ``RecordRow`` is the parameter ``:record_key`` of ``sql/batch.sql``; its annotation is the type.

Each run, record, start and end costs a row, so those of a batch may be plain tuples in the order of the fields, which
take a quarter of the time to make. ``RecordRow._make(row)`` reads one by name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, get_args, get_type_hints

from dbosflow._store.start_options import NO_OPTIONS, StartOptions

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

Row = tuple[Any, ...]
"""The values of a row, in the order of its type's fields."""

BigInt = Annotated[int, "bigint"]
"""An offset or a count, which is not bound to 32 bits, as a plain ``int`` here is."""
_SQL_TYPES: dict[Any, str] = {
    str: "text",
    int: "integer",
    BigInt: "bigint",
    float: "double precision",
    bool: "boolean",
}


class RunRow(NamedTuple):
    """A run that writes, and may do so only while it has this epoch and this worker."""

    workflow_id: str
    epoch: int


class StartRow(NamedTuple):
    """A workflow to insert: ``owned`` if it runs here, else queued."""

    workflow_id: str
    name: str
    queue: str
    priority: int
    input: str
    parent_id: str | None
    parent_key: str | None
    input_streams: str | None
    owned: bool


class OutcomeRow(NamedTuple):
    """The end of a workflow that has ended before it is inserted."""

    status: str | None
    output: str | None
    error: str | None


NO_OUTCOME = OutcomeRow(None, None, None)


class RecordRow(NamedTuple):
    """A record of an operation."""

    workflow_id: str
    key: str
    kind: str
    epoch: int
    seq: int
    turn: int
    attempt: str | None
    output: str | None
    error: str | None
    child_id: str | None
    delay: float | None
    elapsed: float
    loop_key: str | None
    loop_offset: BigInt | None
    loop_next: BigInt | None


class TailRow(NamedTuple):
    """A stream that is written to, and the tail that its writer has seen."""

    workflow_id: str
    key: str
    offset: BigInt


class BlockRow(NamedTuple):
    """A block of a stream that the workflow itself writes."""

    workflow_id: str
    key: str
    offset: BigInt
    value_count: int
    kind: str
    values: str | None
    size: int
    producer: str
    producer_seq: BigInt
    attempt: str | None
    epoch: int
    checksum: int | None
    turn: int


class InputRow(NamedTuple):
    """The end of a stream of outside writers, at the tail that the statement finds."""

    workflow_id: str
    key: str
    kind: str
    values: str | None
    size: int
    epoch: int


class EndRow(NamedTuple):
    """The end of a workflow."""

    workflow_id: str
    epoch: int
    status: str
    output: str | None
    error: str | None


class SuspendRow(NamedTuple):
    """A workflow that leaves memory, until ``delay`` seconds after the statement, or until something else comes."""

    workflow_id: str
    epoch: int
    delay: float | None


class AwaitRow(NamedTuple):
    """What such a workflow waits for: a row of the table ``waiter``."""

    workflow_id: str
    topic: str
    target_id: str
    key: str | None
    offset: BigInt
    committed: bool


class AttributeRow(NamedTuple):
    """An attribute of a workflow that is set, to a value as JSON, or removed."""

    workflow_id: str
    name: str
    value: str | None


class ContinueRow(NamedTuple):
    """A workflow that is continued as new, with these arguments."""

    workflow_id: str
    epoch: int
    iteration: int
    input: str


ROW_TYPES: dict[str, dict[str, Any]] = {
    "runs": {"run": RunRow},
    "starts": {"start": StartRow},
    "options": {"option": StartOptions},
    "outcomes": {"outcome": OutcomeRow},
    "records": {"record": RecordRow},
    "tails": {"tail": TailRow},
    "blocks": {"block": BlockRow},
    "inputs": {"input": InputRow},
    "ends": {"end": EndRow},
    "suspends": {"suspend": SuspendRow},
    "awaits": {"await": AwaitRow},
    "continues": {"continue": ContinueRow},
    "attributes": {"attribute": AttributeRow},
}
"""The types of rows of each section, by the names that their parameters begin with."""


@dataclass(slots=True)
class BatchRows:
    """The rows of one batch."""

    runs: list[Row] = field(default_factory=list)
    starts: list[Row] = field(default_factory=list)
    options: list[StartOptions] = field(default_factory=list)
    """Those of the first starts, up to the last one that has any."""
    outcomes: list[Row] = field(default_factory=list)
    """In the same way: the ends of workflows that have ended already."""
    first_records: list[Row] = field(default_factory=list)
    """What such workflows have on record: written if their starts are new."""
    first_blocks: list[BlockRow] = field(default_factory=list)
    """The blocks of their streams, in the same way."""
    records: list[Row] = field(default_factory=list)
    tails: list[TailRow] = field(default_factory=list)
    blocks: list[BlockRow] = field(default_factory=list)
    inputs: list[InputRow] = field(default_factory=list)
    ends: list[Row] = field(default_factory=list)
    suspends: list[SuspendRow] = field(default_factory=list)
    awaits: list[AwaitRow] = field(default_factory=list)
    continues: list[ContinueRow] = field(default_factory=list)
    attributes: list[AttributeRow] = field(default_factory=list)
    aware: bool = False
    """Whether a run in the batch is being cancelled, and was notified: it needs no further notice."""
    topics: Sequence[str] = ()
    """What other processes are to be notified of behind the batch, on its connection; not for a batch of many rows."""

    def add_start(self, row: Row, options: StartOptions | None, outcome: Row | None = None) -> None:
        """Adds a workflow to insert."""
        if outcome is not None:
            self.outcomes += [NO_OUTCOME] * (len(self.starts) - len(self.outcomes))
            self.outcomes.append(outcome)
        if options is not None:
            self.options += [NO_OPTIONS] * (len(self.starts) - len(self.options))
            self.options.append(options)
        self.starts.append(row)

    def tables(self) -> dict[str, Sequence[Row]]:
        """The rows of each type that the batch has any of, in the order of ``parameters``."""
        tables: dict[str, Sequence[Row]] = {
            "run": self.runs,
            "start": self.starts,
            "option": self.options,
            "outcome": self.outcomes,
            "record": [*self.records, *self.first_records] if self.first_records else self.records,
            "tail": self.tails,
            "block": [*self.blocks, *self.first_blocks] if self.first_blocks else self.blocks,
            "input": self.inputs,
            "end": self.ends,
            "suspend": self.suspends,
            "await": self.awaits,
            "continue": self.continues,
            "attribute": self.attributes,
        }
        return {name: rows for name, rows in tables.items() if rows}

    @property
    def conditions(self) -> tuple[str, ...]:
        """The sections, without rows of their own, that let rows of workflows in which the batch itself starts."""
        if not (self.first_records or self.first_blocks):
            return ()
        return ("firsts", "beside") if self.runs else ("firsts",)


def shape_of(tables: Collection[str]) -> tuple[str, ...]:
    """The sections that a batch with rows of these types has."""
    return tuple(section for section, types in ROW_TYPES.items() if not types.keys().isdisjoint(tables))


@cache
def parameters(shape: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the statement's parameters for the rows of the sections in the shape: ``<row>_<field>``."""
    rows = (row for section in shape for row in ROW_TYPES[section].items())
    return tuple(f"{row}_{name}" for row, row_type in rows for name in row_type._fields)


@cache
def sql_types() -> dict[str, str]:
    """The SQL type of each parameter."""
    return {
        f"{row}_{name}": _sql_type(hint)
        for rows in ROW_TYPES.values()
        for row, row_type in rows.items()
        for name, hint in get_type_hints(row_type, include_extras=True).items()
    }


def _sql_type(hint: Any) -> str:
    """The SQL type of a field, which may also be ``None``."""
    return next(_SQL_TYPES[kind] for kind in (hint, *get_args(hint)) if kind in _SQL_TYPES)
