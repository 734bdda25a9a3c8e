"""Listings and counts of workflows by a filter."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from dbosflow._records.pins import partition_of, queue_of, stored_queue, version_of
from dbosflow._store import statements
from dbosflow._store.payloads import parsed, parsed_error
from dbosflow._store.queries import fetch_text, in_order
from dbosflow.attributes import attribute_of, checked_attributes
from dbosflow.types import WorkflowInfo, WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg import AsyncConnection

    from dbosflow._store.queries import Rows
    from dbosflow.filters import WorkflowFilter

_TABLE = "listing"

SCAN = 10_000
"""How many workflows a statement of a listing looks at, at most: some milliseconds."""
IN_ORDER_OF_AGE = frozenset({"by_age", "by_status"})
"""The sources that an index has in the order of a listing: a statement may look at a few of them only."""

_UNSUCCESSFUL = frozenset({"blocked", "failed", "cancelled"})
_QUEUED_OR_OWNED = frozenset({"queued", "running"})
"""The statuses of which each has an index, so that a listing need not look at all workflows."""


class Position(NamedTuple):
    """A place in a listing: what follows was created before, or at the same time under a smaller id."""

    created_at: str
    id: str


NEWEST = Position("infinity", "")
"""The place before the newest workflow."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a statement of a listing has found."""

    rows: Rows
    """The workflows that meet the filter; the columns ``found_id`` and ``found_at`` are their places."""
    next: Position | None
    """Where it stopped looking; ``None`` if nothing is left to look at."""


async def source_of(connection: AsyncConnection[Any], schema: str, which: WorkflowFilter) -> str:
    """The source with the fewest candidates among those that have an index for the filter, else all workflows."""
    values = _values(which)
    for source in _sources(which):
        async with in_order(connection):
            (row,) = await fetch_text(connection, schema, _statement("candidates", source, (), schema), values)
        if row["candidates"] <= SCAN:
            return source
    return "by_status" if which.statuses and set(which.statuses) <= _UNSUCCESSFUL else "by_age"


async def stretch(
    connection: AsyncConnection[Any],
    schema: str,
    which: WorkflowFilter,
    *,
    source: str,
    position: Position,
    limit: int,
    scan: int,
    records: bool,
) -> Stretch:
    """The first workflows after a place that meet the filter, among the next ``scan`` of a source.

    With ``records`` their columns, otherwise only their places.
    """
    sections = (*_sections(which), *(("records",) if records else ()))
    if position == NEWEST and which.created_before is not None:
        position = Position(which.created_before.isoformat(), "")
    values = {
        **_values(which),
        "before_at": position.created_at,
        "before_id": position.id,
        "limit": limit,
        "scan": scan,
    }
    async with in_order(connection):
        rows = await fetch_text(connection, schema, _statement("page", source, sections, schema), values)
    found = [row for row in rows if row["found_id"] is not None]
    if rows[0]["scanned"] < scan and len(found) < limit:
        return Stretch(found, None)
    if len(found) == limit and limit:
        return Stretch(found, position_of(found[-1]))
    return Stretch(found, Position(rows[0]["scanned_at"].isoformat(), rows[0]["scanned_id"]))


def position_of(row: Mapping[str, Any]) -> Position:
    """The place of a row of a listing."""
    return Position(row["found_at"].isoformat(), row["found_id"])


async def count(connection: AsyncConnection[Any], schema: str, which: WorkflowFilter, by: str | None) -> dict[str, int]:
    """The numbers of workflows that meet the filter, by the values of a column; of all, under the empty text."""
    sections = (*_sections(which), f"by_{by}" if by else "in_all")
    async with connection.transaction():
        # It reads the table: in its order, and planned for these criteria.
        await connection.execute("SET LOCAL enable_seqscan = on; SET LOCAL plan_cache_mode = force_custom_plan")
        rows = await fetch_text(connection, schema, _statement("count", "by_age", sections, schema), _values(which))
    return {row["value"] or "": row["workflows"] for row in rows}


async def show(connection: AsyncConnection[Any], schema: str, workflow_id: str) -> WorkflowInfo | None:
    """The record of a workflow."""
    text = _statement("show", "by_age", (), schema)
    rows = await fetch_text(connection, schema, text, {"workflow_id": workflow_id})
    return info_of(rows[0]) if rows else None


_OF_THE_LISTING = ("scanned", "scanned_at", "scanned_id", "found_id", "found_at")


def info_of(row: dict[str, Any]) -> WorkflowInfo:
    """The record of a workflow from a row with its columns."""
    columns = {name: value for name, value in row.items() if name not in _OF_THE_LISTING}
    columns |= {name: parsed(row[name]) for name in ("input", "output")}
    columns |= {"queue": queue_of(row["queue"]), "pinned_version": version_of(row["queue"])}
    columns |= {"partition_key": partition_of(row["queue"])}
    columns |= {"error": parsed_error(row["error"]), "status": WorkflowStatus(row["status"])}
    attributes = json.loads(row["attributes"] or "{}")
    return WorkflowInfo(**{**columns, "attributes": {name: attribute_of(text) for name, text in attributes.items()}})


def _sources(which: WorkflowFilter) -> list[str]:
    """The sources that may have few candidates, in the order in which they are tried."""
    found = []
    if which.parent_id is not None:
        found.append("by_parent")
    if which.forked_from is not None:
        found.append("by_origin")
    if which.attributes:
        found.append("by_attribute")
    if which.statuses and set(which.statuses) <= _QUEUED_OR_OWNED:
        found.append("by_owner")
    return found


_CRITERIA = (
    *(
        "statuses",
        "names",
        "queues",
        "id_prefix",
        "parent_id",
        "forked_from",
        "version",
        "created_after",
        "created_before",
    ),
    *("started_after", "started_before", "ended_after", "ended_before", "attributes"),
)


def _sections(which: WorkflowFilter) -> tuple[str, ...]:
    """The sections of the statements that the filter needs."""
    return tuple(one for one in _CRITERIA if getattr(which, one))


def _values(which: WorkflowFilter) -> dict[str, Any]:
    """The parameters of the statements, by name. A statement takes those that it has."""
    values = {one: getattr(which, one) for one in _CRITERIA if one != "attributes"}
    values["pinned"] = stored_queue("", which.version)
    values |= {one: list(values[one]) for one in ("statuses", "names", "queues") if values[one] is not None}
    attributes = checked_attributes(which.attributes or {})
    first = next(iter(attributes.items()), (None, None))
    lists = {"attribute_names": list(attributes), "attribute_values": list(attributes.values())}
    return {**values, **lists, "attribute": first[0], "attribute_value": first[1], "scan": SCAN}


@cache
def _statement(name: str, source: str, sections: tuple[str, ...], schema: str) -> str:
    texts = {
        part: statements.prepare(statements.with_sections(statements.source(_TABLE)[text], sections), schema)
        for part, text in (("source", source), ("conditions", "conditions"), ("record", "record"))
    }
    return statements.prepare(statements.with_sections(statements.source(_TABLE)[name], sections), schema, texts)
