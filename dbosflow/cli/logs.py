"""The logs of commands, on stderr: lines for people, or one JSON object per line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""The attributes of every record. All others were added by the code that logs."""


def set_up(*, verbose: bool, is_service: bool, is_one_of_many: bool, in_json: bool) -> None:
    """Sends the log records of the library and of the user's code to stderr."""
    level = logging.INFO if verbose or is_service else logging.WARNING
    who = "[%(process)d] " if is_one_of_many else ""
    form = f"%(asctime)s {who}%(levelname)-7s %(name)s: %(message)s"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if in_json else logging.Formatter(form, datefmt="%H:%M:%S"))
    logging.basicConfig(handlers=[handler], level=level)
    # alembic logs details of what the migration's own line says.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    if verbose:
        logging.getLogger("dbosflow").setLevel(logging.DEBUG)


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON: its time in UTC, its origin, and the attributes that its code has added.

    Records of workflows have ``workflow_id``, ``step_key`` and ``attempt``: see ``dbosflow.get_logger``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line. It is ASCII only, so it is valid JSON in any output encoding."""
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
