"""What ``EXPLAIN ANALYZE`` reports of a statement prepared as psycopg does it, with tables full of other things."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from psycopg import sql

from tests.protocol.schedules import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import AsyncConnection

    from tests.protocol.schedules import Database

CROWD = 20_000
"""Workflows in the tables."""

Node = dict[str, Any]


class Plan:
    """What ``EXPLAIN ANALYZE`` reports of one execution."""

    def __init__(self, plan: Node) -> None:
        self.nodes = list(_nodes(plan))
        # Parts that write are carried out after the rest, and are not in the figures of the whole.
        self.pages = max(_pages(plan), sum(map(_pages, plan.get("Plans", ()))))
        """How often it looked at a page."""

    def access(self, table: str) -> set[str]:
        """What a table was read by: names of indexes, or the kind of a scan that uses none."""
        reads = [node for node in self.nodes if node.get("Relation Name") == table and "Scan" in node["Node Type"]]
        return {index for scan in reads if scan["Actual Loops"] for index in _indexes(scan)}

    def pages_of(self, table: str) -> int:
        """How often it looked at a page in order to read a table."""
        return sum(
            _pages(node) for node in self.nodes if node.get("Relation Name") == table and "Scan" in node["Node Type"]
        )

    @property
    def work(self) -> float:
        """The rows that the busiest node handled."""
        return max(map(_work, self.nodes))

    def wal(self, what: str) -> int:
        """What its writing parts wrote to the log: ``Records``, ``FPI`` (images of pages), ``Bytes`` (of both)."""
        return sum(int(node[f"WAL {what}"]) for node in self.nodes if node["Node Type"] == "ModifyTable")

    @property
    def joined_results(self) -> set[str]:
        """The results of other parts that rows are joined with. Only those of one row cannot become a nested loop."""
        joins = [node for node in self.nodes if node["Node Type"] in ("Nested Loop", "Hash Join", "Merge Join")]
        return {part["CTE Name"] for join in joins for part in _joined(join) if part["Node Type"] == "CTE Scan"}


def _pages(node: Node) -> int:
    return int(node["Shared Hit Blocks"] + node["Shared Read Blocks"])


def _joined(join: Node) -> Iterator[Node]:
    for part in join["Plans"]:
        yield part
        if part["Node Type"] in ("Hash", "Sort", "Materialize", "Memoize"):
            yield from part["Plans"]


def _nodes(plan: Node) -> Iterator[Node]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


def _work(node: Node) -> float:
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Join Filter", 0)
    return float((node["Actual Rows"] + removed) * node["Actual Loops"])


def _indexes(scan: Node) -> Iterator[str]:
    if scan["Node Type"].startswith("Bitmap"):
        if "Index Name" in scan:
            yield scan["Index Name"]
        for part in scan.get("Plans", ()):
            if part["Node Type"].startswith("Bitmap"):
                yield from _indexes(part)
    else:
        yield str(scan.get("Index Name", scan["Node Type"]))


async def prepare(connection: AsyncConnection[Any], name: str, statement: str) -> list[str]:
    """Prepares a statement as psycopg does; the order of its parameters."""
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)))
    for number, parameter in enumerate(names, 1):
        statement = statement.replace(f"%({parameter})s", f"${number}")
    await connection.execute(f"PREPARE hot_{name} AS {statement.replace('%%', '%')}".encode())
    return names


async def explain(
    connection: AsyncConnection[Any], name: str, values: list[Any], *, claims_of: str | None = None
) -> Plan:
    """Runs a prepared statement, and rolls it back; as one that has the turn of a queue with limits, for its claim."""
    given = sql.SQL(", ").join(sql.Literal([*one] if isinstance(one, tuple) else one) for one in values)
    execute = sql.SQL("EXPLAIN (ANALYZE, BUFFERS, WAL, FORMAT JSON) EXECUTE {} {}").format(
        sql.Identifier(f"hot_{name}"), sql.SQL("({})").format(given) if values else sql.SQL("")
    )
    await connection.execute("BEGIN")
    if claims_of is not None:
        await connection.execute("SELECT set_config('dbosflow.claims_of', %s, true)", (claims_of,))
    cursor = await connection.execute(execute)
    row = await cursor.fetchone()
    await connection.execute("ROLLBACK")
    assert row is not None
    return Plan((row[0] if isinstance(row[0], list) else json.loads(row[0]))[0]["Plan"])


async def populate(db: Database, *, worker_id: object, owned: int = CROWD // 2) -> None:
    """A crowd of workflows with records and streams, some of them owned by the worker.

    Nothing is analyzed: that would have prepared statements planned anew.
    """
    await db.rows(
        """INSERT INTO dbosflow.workflow (id, name, status, input, epoch, worker_id)
           SELECT 'w' || n, %s, CASE WHEN n %% 2 = 0 AND n <= 2 * %s THEN 'running' ELSE 'succeeded' END, '{}', 1,
                  CASE WHEN n %% 2 = 0 AND n <= 2 * %s THEN %s::uuid END
           FROM generate_series(1, %s) n""",
        *(NAME, owned, owned, worker_id, CROWD),
    )
    await db.rows(
        """INSERT INTO dbosflow.step (workflow_id, key, kind, epoch, seq, turn, started_at)
           SELECT 'w' || n, 'first', 'step', 1, 0, 0, now() FROM generate_series(1, %s) n""",
        CROWD,
    )
    await db.rows(
        """INSERT INTO dbosflow.stream_block
               (workflow_id, key, "offset", count, kind, values, bytes, producer, producer_seq, epoch)
           SELECT 'w' || n, 'out', o, 1, 'values', '[1]', 3, '', o, 1
           FROM generate_series(1, %s / 4) n, generate_series(0, 3) o""",
        CROWD,
    )
