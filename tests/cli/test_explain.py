"""``dbosflow workflow explain``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dbosflow import Engine, workflow

if TYPE_CHECKING:
    from tests.cli.shell import Shell


@workflow
def unserved() -> None:
    """Nobody runs it."""


def test_it_says_why_in_words_and_as_data(shell: Shell, database_url: str) -> None:
    """A workflow that is not there is an error."""
    with Engine(database_url, executes=False) as engine:
        engine.start(unserved.options(workflow_id="w", queue="q"))
    lines = shell.run("workflow", "explain", "w").out.splitlines()
    assert lines[0] == "workflow 'w' is queued"
    assert lines[1] == "- it waits for a worker, and none is live; start `dbosflow worker MODULE --queue q`"
    found = json.loads(shell.run("workflow", "explain", "w", "--json").out)
    assert (found["workflow_id"], found["status"]) == ("w", "queued")
    (cause,) = found["causes"]
    assert cause.keys() == {"code", "workflow_id", "text", "frees", "related", "until"}
    assert cause["code"] == "no-worker"
    done = shell.run("workflow", "explain", "nobody")
    assert (done.status, done.out) == (1, "")
    assert "there is no workflow 'nobody'" in done.err
