"""``dbosflow version`` and ``workflow unpin``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dbosflow import Engine, workflow

if TYPE_CHECKING:
    from tests.cli.shell import Shell


@workflow
def needs_a_version() -> None:
    """Nobody runs it."""


def test_versions_are_listed_and_workflows_unpinned(shell: Shell, database_url: str) -> None:
    """With what is pinned to them, and who carries them; doctor names what waits for nobody."""
    assert "no live worker has a version" in shell.run("version", "list").err
    with Engine(database_url, version="v2") as engine:
        engine.start(needs_a_version.options(workflow_id="w", queue="q", pin_version="v1"))
        lines = [line.split()[:6] for line in shell.run("version", "list").out.splitlines()]
        assert lines[0][:4] == ["VERSION", "WORKERS", "RUNS", "PINNED"]
        assert lines[1] == ["v1", "0", "0", "1", "queued", "1"]
        assert lines[2][:5] == ["v2", "1", "0", "0", "-"]
        found = json.loads(shell.run("version", "list", "--json").out)
        assert [(one["version"], one["workers"], one["statuses"]) for one in found] == [
            ("v1", 0, {"queued": 1}),
            ("v2", 1, {}),
        ]
        work = [one for one in json.loads(shell.run("doctor", "--json").out)["checks"] if one["check"] == "work"]
        assert "1 unfinished workflow is pinned to version 'v1', which no live worker carries" in work[0]["found"]
        assert "--version-name v1" in work[0]["advice"]
    assert shell.run("workflow", "unpin", "w").out == "w  unpinned\n"
    done = shell.run("workflow", "unpin", "w", "nobody", "--json")
    assert [one["outcome"] for one in json.loads(done.out)] == ["unchanged", "unknown"]
    assert done.status == 1
