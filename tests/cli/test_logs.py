"""The lines that commands log: which there are without ``-v``, and what a line of JSON holds."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from dbosflow import Engine, workflow
from dbosflow.cli.logs import JsonFormatter


def line_of(message: str, *args: object, **extra: Any) -> Any:
    """A record as a line of JSON, which is read again."""
    record = logging.LogRecord("app", logging.ERROR, "app.py", 1, message, args, extra.pop("exc_info", None))
    vars(record).update(extra)
    line = JsonFormatter().format(record)
    assert line.isascii()
    assert "\n" not in line
    return json.loads(line)


def test_a_line_of_json_holds_what_the_record_does() -> None:
    """Its text, what its code has added, and an exception's traceback; nothing that is not there."""
    line = line_of("%s\nlines, é", "two", workflow_id="w", step_key=None, at=JsonFormatter)
    assert (line["message"], line["level"], line["logger"]) == ("two\nlines, é", "ERROR", "app")
    assert (line["workflow_id"], line["at"]) == ("w", str(JsonFormatter))
    assert line["time"].endswith("+00:00")
    assert line.keys().isdisjoint({"step_key", "exception", "stack", "args", "msg"})
    with pytest.raises(ValueError, match="no") as raised:
        int("no")
    failed = line_of("failed", exc_info=(raised.type, raised.value, raised.tb), stack_info="where it was")
    assert "ValueError: invalid literal" in failed["exception"]
    assert "Traceback" in failed["exception"]
    assert failed["stack"] == "where it was"


@workflow(name="named in the log")
def told_of() -> None: ...


def test_begins_and_ends_of_workflows_are_for_those_who_ask(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is a line at DEBUG: without ``-v`` a worker says nothing of what goes well."""
    caplog.set_level(logging.DEBUG, logger="dbosflow")
    with Engine(database_url) as engine:
        engine.run(told_of.options(workflow_id="w"))
    lines = [one for one in caplog.records if "named in the log" in one.getMessage()]
    assert [one.getMessage().split(" after ")[0] for one in lines] == [
        "workflow w (named in the log) begins at epoch 1",
        "workflow w (named in the log) is succeeded",
    ]
    assert {one.levelname for one in lines} == {"DEBUG"}
    assert {vars(one)["workflow_id"] for one in lines} == {"w"}
