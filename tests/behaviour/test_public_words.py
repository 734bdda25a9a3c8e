"""These tests use what a user has: the public modules, and a look at the tables."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import dbosflow
from dbosflow import Engine, StreamWriter, WorkflowHandle, testing
from dbosflow.schedules.engine_schedules import Schedules
from dbosflow.streams.resource import Streams

PUBLIC = {
    *("dbosflow", "dbosflow.config", "dbosflow.contrib.sqlalchemy", "dbosflow.errors", "dbosflow.testing"),
    *("dbosflow.types", "dbosflow.workflows"),
}


def imported(path: Path) -> set[str]:
    """The modules of the package that a file imports, or imports from."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return {name for name in found if name.split(".")[0] == "dbosflow"}


def test_only_public_modules_are_imported_here() -> None:
    """Else they would hold the inside still, and say nothing about what users can rely on."""
    files = sorted(path for path in Path(__file__).parent.rglob("*.py") if path != Path(__file__))
    assert len(files) > 20
    assert {path.name: imported(path) - PUBLIC for path in files if imported(path) - PUBLIC} == {}


def test_what_an_editor_shows_says_what_the_call_does() -> None:
    """Of a blocking call, too: not only that it is the twin of another one."""
    places: list[Any] = [dbosflow, Engine, WorkflowHandle, StreamWriter, Streams, Schedules, testing]
    twins = [(place, name.removesuffix("_async")) for place in places for name in dir(place) if name.endswith("_async")]
    twins = [(place, name) for place, name in twins if hasattr(place, name) and not name.startswith("_")]
    assert len(twins) > 25
    for place, name in twins:
        first, *_ = (inspect.getdoc(getattr(place, name)) or "").splitlines()
        assert len(first.split()) > 4, name
        assert "twin" not in first.split(".")[0], name
