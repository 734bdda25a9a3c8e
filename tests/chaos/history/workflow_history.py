"""The history of each workflow: its rows in the database, and its lines in the ledger."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg.rows import dict_row

from dbosflow._records.spaces import is_reserved
from tests.chaos.checkers.model import Records
from tests.chaos.history.ledger_reader import LedgerReader
from tests.chaos.workloads.messages import INBOX

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.chaos.history.ledger_reader import Line

_CHUNK = 500

_COLUMNS: LiteralString = """
    id, name, status, input, output, error, epoch, worker_id::text AS worker_id, parent_id, input_streams,
    extract(epoch FROM created_at)::double precision AS created_at,
    extract(epoch FROM ended_at)::double precision AS ended_at"""
_WORKFLOWS: LiteralString = f"SELECT {_COLUMNS} FROM dbosflow.workflow ORDER BY id"
_TREES: LiteralString = f"""
    WITH RECURSIVE tree AS (
        SELECT id FROM dbosflow.workflow WHERE id = ANY(%s)
        UNION ALL
        SELECT w.id FROM dbosflow.workflow w JOIN tree t ON w.parent_id = t.id)
    SELECT {_COLUMNS} FROM dbosflow.workflow JOIN tree USING (id) ORDER BY id"""
_STEPS: LiteralString = """
    SELECT workflow_id, key, kind, epoch, seq, attempt, output, error, child_id, loop_key, loop_offset, loop_next,
           extract(epoch FROM recorded_at)::double precision AS recorded_at,
           extract(epoch FROM wake_at)::double precision AS wake_at
    FROM dbosflow.step WHERE workflow_id = ANY(%s) ORDER BY workflow_id, seq"""
_BLOCKS: LiteralString = """
    SELECT workflow_id, key, "offset", count, kind, values, producer, attempt, epoch,
           extract(epoch FROM created_at)::double precision AS created_at
    FROM dbosflow.stream_block WHERE workflow_id = ANY(%s) ORDER BY workflow_id, key, "offset\""""
_TRIMS: LiteralString = """
    SELECT workflow_id, key, producer, count FROM dbosflow.stream_trim WHERE workflow_id = ANY(%s)"""


@dataclass
class WorkflowHistory:
    """All that was seen of one workflow, when it is over."""

    row: dict[str, Any]
    steps: list[dict[str, Any]] = field(default_factory=list)
    blocks: list[dict[str, Any]] = field(default_factory=list)
    trims: list[dict[str, Any]] = field(default_factory=list)
    lines: Sequence[Line] = ()
    children: dict[str, Any] = field(default_factory=dict)

    @property
    def workflow_id(self) -> str:
        """Its id."""
        return str(self.row["id"])

    @property
    def root_id(self) -> str:
        """The id of the workflow that a client started: its own, or that of its first ancestor."""
        return root_of(self.workflow_id)

    def keys(self) -> list[str]:
        """Its streams, without those that the engine keeps for it."""
        return sorted({block["key"] for block in self.blocks if not is_reserved(block["key"])})

    @property
    def inputs(self) -> list[str]:
        """What others write to: its inputs, or the inbox of its messages."""
        return [*(self.row["input_streams"] or ([INBOX] if self.row["name"].startswith("receiving") else []))]

    def first(self, key: str) -> int:
        """The first offset of a stream that is still there."""
        return min((block["offset"] for block in self.blocks if block["key"] == key), default=0)

    def trimmed(self, key: str) -> dict[str, int]:
        """How many values of each producer are gone from a stream."""
        return {trim["producer"]: trim["count"] for trim in self.trims if trim["key"] == key}

    def values(self, key: str, *, committed: bool = False) -> list[tuple[int, Any]]:
        """Offset and value of all that a stream holds, or of what is committed: what no attempt wrote in vain."""
        succeeded = {
            f"{step['key']}@{attempt}"
            for step in self.steps
            if step["kind"] == "step" and not step["error"]
            for attempt in (step["attempt"], "*")  # of a writer that resumes, all attempts are one producer
        }
        return [
            (block["offset"] + place, value)
            for block in self.blocks
            if block["key"] == key and block["kind"] == "values"
            if not committed or block["attempt"] is None or block["producer"] in succeeded
            for place, value in enumerate(block["values"])
        ]

    def ends(self, key: str) -> list[str]:
        """The kinds of a stream's terminal frames."""
        kinds = [block["kind"] for block in self.blocks if block["key"] == key]
        return [kind for kind in kinds if kind not in {"values", "rollback"}]

    def records(self, acknowledged: dict[int, str] | None = None, answers: Mapping[int, str] | None = None) -> Records:
        """What the model depends on; ``acknowledged``: what writers were acknowledged, by offset, trimmed or not.

        ``answers``: those to its tokens that were acknowledged.
        """
        outputs = [step["output"] for step in self.steps if step["kind"] == "step"]
        inputs = {key: dict(self.values(key)) | (acknowledged or {}) for key in self.inputs}
        return Records(
            draws={output[0]: output[1] for output in outputs if isinstance(output, list)},
            children=self.children,
            child_ids={step["key"]: step["child_id"] for step in self.steps if step["kind"] == "child"},
            inputs={key: _dense(values) for key, values in inputs.items()},
            answers=answers or {},
        )


def root_of(workflow_id: str) -> str:
    """The id of the first ancestor."""
    return workflow_id.partition("/")[0]


def _dense(values: dict[int, Any]) -> list[Any]:
    """In the order of the offsets, up to the first gap."""
    offsets = takewhile(lambda pair: pair[0] == pair[1], enumerate(sorted(values)))
    return [values[offset] for _, offset in offsets]


def histories(
    url: str, reader: LedgerReader | None = None, *, roots: Sequence[str] | None = None
) -> Iterator[WorkflowHistory]:
    """Of every workflow in the database, or of the trees of some roots; a few hundred at a time are in memory."""
    if reader is None:
        reader = LedgerReader()
        reader.read_on()
    with psycopg.connect(url, autocommit=True, application_name="looking", row_factory=dict_row) as connection:
        if roots is None:
            rows = connection.execute(_WORKFLOWS).fetchall()
        else:
            rows = connection.execute(_TREES, ([*roots],)).fetchall()
        children: dict[str, dict[str, Any]] = defaultdict(dict)
        for row in rows:
            if row["parent_id"] is not None:
                gave = row["output"] if row["error"] is None else row["error"]["message"]
                children[row["parent_id"]][row["id"]] = gave
        for first in range(0, len(rows), _CHUNK):
            chunk = {row["id"]: WorkflowHistory(row) for row in rows[first : first + _CHUNK]}
            with connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                for query, name in ((_STEPS, "steps"), (_BLOCKS, "blocks"), (_TRIMS, "trims")):
                    for found in connection.execute(query, ([*chunk],)):
                        getattr(chunk[found["workflow_id"]], name).append(found)
            for history in chunk.values():
                history.lines = reader.of(history.workflow_id)
                history.children = children.get(history.workflow_id, {})
                yield history
