"""The text for a disagreement of code and records: one text, wherever the disagreement is found."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from dbosflow.errors import NonDeterminismError

if TYPE_CHECKING:
    from dbosflow._store.step import Recorded


def contradiction(
    workflow_id: str,
    asked: str,
    there: str,
    record: Recorded | None = None,
    *,
    read_before: float = 0.0,
    is_late: bool = False,
) -> NonDeterminismError:
    """The error that parks a workflow.

    Args:
        workflow_id: the workflow's.
        asked: what the code does now, as in "asks for a sleep at key 'sleep#0'".
        there: what the records hold instead, as in "a step".
        record: the record that holds it, if it is one record: then the text says when it was made, and by which epoch.
        read_before: seconds since the history was read.
        is_late: whether new operations may have run since that place.
    """
    made = "" if record is None else f", recorded {_moment(record.age + read_before)} in epoch {record.epoch}"
    new = "Steps may have run since, and are on record" if is_late else "Nothing new has run"
    msg = (
        f"workflow {workflow_id!r}: its code {asked}, where its records hold {there}{made}. So its code has changed "
        "since, or does not follow from its records (a plain timer starts anew in a replay; dbosflow.timeout and "
        f"dbosflow.wait are on record). {new}, and a worker parks the workflow as blocked. "
        "Put the code back that made these records, or keep its path beside the new one, with "
        'if patched("name"), and resume the workflow: '
        f"engine.resume({workflow_id!r}), or `dbosflow workflow resume`. `dbosflow replay` tries code against records"
    )
    return NonDeterminismError(workflow_id, msg)


def _moment(age: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=age)).strftime("%Y-%m-%d %H:%M:%S UTC")
