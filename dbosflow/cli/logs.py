"""What commands log, on stderr: lines for people, or a JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; the rest is what the code that logs has added."""


def set_up(*, verbose: bool, is_service: bool, is_one_of_many: bool, in_json: bool) -> None:
    """Has the library's records, and the user's, written to stderr."""
    level = logging.INFO if verbose or is_service else logging.WARNING
    who = "[%(process)d] " if is_one_of_many else ""
    form = f"%(asctime)s {who}%(levelname)-7s %(name)s: %(message)s"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if in_json else logging.Formatter(form, datefmt="%H:%M:%S"))
    logging.basicConfig(handlers=[handler], level=level)
    # alembic tells how it does what the migration's own line says.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    if verbose:
        logging.getLogger("dbosflow").setLevel(logging.DEBUG)


class JsonFormatter(logging.Formatter):
    """A record as a JSON object on one line: its time in UTC, where it comes from, and what its code has added to it.

    A workflow's own records carry ``workflow_id``, ``step_key`` and ``attempt``: see ``dbosflow.get_logger``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line. ASCII only, so it is JSON whichever encoding the output has."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        line |= {name: value for name, value in vars(record).items() if name not in _OWN and value is not None}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        return json.dumps(line, default=str)
