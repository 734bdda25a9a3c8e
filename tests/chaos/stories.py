"""What there is to know of each workflow afterwards: its rows, and its lines in the ledger."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, LiteralString, NamedTuple

import psycopg
from psycopg.rows import dict_row

from tests.behaviour import ledger
from tests.chaos.expectations import Records

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 500

_WORKFLOWS: LiteralString = """
    SELECT id, name, status, input, output, error, epoch, worker_id::text AS worker_id, parent_id,
           extract(epoch FROM ended_at)::double precision AS ended_at
    FROM dbosflow.workflow ORDER BY id"""
_STEPS: LiteralString = """
    SELECT workflow_id, key, kind, epoch, attempt, output, error, child_id,
           extract(epoch FROM recorded_at)::double precision AS recorded_at
    FROM dbosflow.step WHERE workflow_id = ANY(%s) ORDER BY workflow_id, seq"""
_BLOCKS: LiteralString = """
    SELECT workflow_id, key, "offset", count, kind, values, producer, attempt, epoch,
           extract(epoch FROM created_at)::double precision AS created_at
    FROM dbosflow.stream_block WHERE workflow_id = ANY(%s) ORDER BY workflow_id, key, "offset\""""


class Line(NamedTuple):
    """One line of the ledger: ``pass``, or ``begin`` and ``end`` of a step body."""

    what: str
    key: str | None
    attempt: str | None
    pid: int
    at: float


@dataclass
class Story:
    """One workflow, when all is over."""

    row: dict[str, Any]
    steps: list[dict[str, Any]] = field(default_factory=list)
    blocks: list[dict[str, Any]] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    children: dict[str, Any] = field(default_factory=dict)

    @property
    def workflow_id(self) -> str:
        """Its id."""
        return str(self.row["id"])

    @property
    def root_id(self) -> str:
        """The id of the workflow that was started from outside: its own, or that of its first ancestor."""
        return self.workflow_id.partition("/")[0]

    def keys(self) -> list[str]:
        """Its streams."""
        return sorted({block["key"] for block in self.blocks})

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

    def records(self) -> Records:
        """What its expectation depends on."""
        outputs = [step["output"] for step in self.steps if step["kind"] == "step"]
        return Records(
            draws={output[0]: output[1] for output in outputs if isinstance(output, list)},
            children=self.children,
            child_ids={step["key"]: step["child_id"] for step in self.steps if step["kind"] == "child"},
        )


def stories(url: str) -> Iterator[Story]:
    """Every workflow of the database; a few hundred at a time are in memory."""
    lines = _lines()
    with psycopg.connect(url, autocommit=True, application_name="looking", row_factory=dict_row) as connection:
        rows = connection.execute(_WORKFLOWS).fetchall()
        gave = {row["id"]: row["output"] if row["error"] is None else row["error"]["message"] for row in rows}
        children: dict[str, dict[str, Any]] = defaultdict(dict)
        for row in rows:
            if row["parent_id"] is not None:
                children[row["parent_id"]][row["id"]] = gave[row["id"]]
        for first in range(0, len(rows), _CHUNK):
            chunk = {row["id"]: Story(row) for row in rows[first : first + _CHUNK]}
            for query, name in ((_STEPS, "steps"), (_BLOCKS, "blocks")):
                for found in connection.execute(query, ([*chunk],)):
                    getattr(chunk[found["workflow_id"]], name).append(found)
            for story in chunk.values():
                story.lines = lines.get(story.workflow_id, [])
                story.children = children.get(story.workflow_id, {})
                yield story


def _lines() -> dict[str, list[Line]]:
    found: dict[str, list[Line]] = defaultdict(list)
    for entry in ledger.entries():
        what, workflow_id, key, attempt = entry.what
        found[workflow_id].append(Line(what, key, attempt, entry.pid, entry.at))
    return found
