"""These tests use what a user has: the public modules, and a look at the tables."""

from __future__ import annotations

import ast
from pathlib import Path

PUBLIC = {"dbosflow", "dbosflow.config", "dbosflow.errors", "dbosflow.testing", "dbosflow.types"}


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
    files = sorted(Path(__file__).parent.rglob("*.py"))
    assert len(files) > 20
    assert {path.name: imported(path) - PUBLIC for path in files if imported(path) - PUBLIC} == {}
