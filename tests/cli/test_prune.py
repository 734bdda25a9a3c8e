"""``dbosflow prune``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dbosflow import Engine, workflow
from tests.cli.waiting import WAITING, start_worker
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.shell import Shell


@workflow
def prunable() -> None:
    """Nothing that would be missed."""


def test_it_says_how_many_are_gone(shell: Shell, database_url: str) -> None:
    """It prunes those that ended longer ago than the given age."""
    with Engine(database_url) as engine:
        for _ in range(3):
            engine.run(prunable)
    assert shell.run("prune", "--older-than", "1d").out == "0 workflows pruned\n"
    assert shell.run("prune", "--older-than", "1d", "--dry-run").out == "0 workflows would be pruned\n"
    for _ in range(2):  # it removes nothing; somebody may have a snapshot that is older than their ends
        eventually(
            lambda: json.loads(shell.run("prune", "--older-than", "0s", "--dry-run", "--json").out) == {"prunable": 3}
        )
    assert json.loads(shell.run("prune", "--older-than", "0s", "--batch", "2", "--json").out) == {"pruned": 3}


def test_a_worker_with_a_retention_prunes_by_itself(
    shell: Shell, database_url: str, execute: Callable[..., list[tuple[Any, ...]]]
) -> None:
    """Names may have an equals sign; a number behind it says how many stay."""
    planted = (("a=b", 4), ("report", 3), ("other", 2))
    for name, count in planted:
        execute(
            "INSERT INTO dbosflow.workflow (id, name, status, input, created_at, ended_at) "
            "SELECT %s || n, %s, 'failed', '{}', now() - n * interval '40 d', now() - n * interval '40 d' "
            "FROM generate_series(1, %s) AS n",
            *(name, name, count),
        )
    shell.write("app.py", WAITING)
    start_worker(shell, "app", "--retention=30d", "--retention-keep=a=b", "--retention-keep=report=1")
    left = "SELECT id FROM dbosflow.workflow ORDER BY id"
    eventually(lambda: [row[0] for row in execute(left)] == ["a=b1", "a=b2", "a=b3", "a=b4", "report1"])
