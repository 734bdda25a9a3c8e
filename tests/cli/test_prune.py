"""``dbosflow prune``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dbosflow import Engine, workflow
from tests.support import eventually

if TYPE_CHECKING:
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
