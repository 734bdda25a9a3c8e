"""What the log says of runs that begin and end, for whoever looks at single workflows."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dbosflow._runtime.execution.run import Run

logger = logging.getLogger("dbosflow.runner")


def log_run(run: Run, what: str, *values: object) -> None:
    """Logs what becomes of a run."""
    if logger.isEnabledFor(logging.DEBUG):
        ids = {"workflow_id": run.workflow_id, "workflow_name": run.definition.name}
        logger.debug(f"workflow %s (%s) {what}", *ids.values(), *values, extra=ids)  # noqa: G004 (only the constant part)
