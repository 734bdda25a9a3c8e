"""Attributes that a body sets: written with the record that says so, in one statement, so each change is made once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.operations.operation import DurableOperation
from dbosflow._runtime.runs.entries import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dbosflow._runtime.execution.run import RunBranch

_NAME = "update_attributes"


async def update_attributes(branch: RunBranch, changes: Mapping[str, str | None]) -> None:
    """Sets attributes of the branch's workflow, as JSON, and removes those that are ``None``."""
    async with DurableOperation(branch, RecordKind.ATTRIBUTES, _NAME, f"{_NAME}(...)") as operation:

        async def live() -> Record:
            text = json.dumps(changes, ensure_ascii=False)
            return Record(operation.key, RecordKind.ATTRIBUTES, output=text, attributes=changes)

        await operation.outcome(live)
