"""No module of the package imports itself by way of others, types included: what is below can be read by itself."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import dbosflow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PACKAGE = Path(dbosflow.__file__).parent

ALLOWED: frozenset[frozenset[str]] = frozenset()
"""Circles that are there for a reason, which stands beside them. There is none."""

Graph = dict[str, set[str]]


def modules(package: Path) -> dict[str, Path]:
    """The modules of a package by their full names; a package's is its ``__init__``."""
    found: dict[str, Path] = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def graph(package: Path) -> Graph:
    """Which module imports which, wherever the import stands: also in a function, or for types only."""
    known = modules(package)
    return {name: set(_imported(ast.parse(path.read_text("utf-8")), known)) - {name} for name, path in known.items()}


def _imported(module: ast.Module, known: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level  # relative imports are banned
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else str(node.module) for name in whole]
        else:
            continue
        yield from (name for name in names if name in known)


def circles(imports: Graph) -> list[list[str]]:
    """The groups of modules each of which imports all others of its group, directly or by way of them."""
    found: dict[frozenset[str], None] = {}
    reached = {name: _reached(imports, name) for name in imports}
    for name in imports:
        group = frozenset(other for other in reached[name] if name in reached[other])
        if group:
            found[group | {name}] = None
    return sorted(sorted(group) for group in found)


def _reached(imports: Graph, name: str) -> set[str]:
    """All that a module imports, by way of others, too; itself only by way of others."""
    found: set[str] = set()
    coming = [*imports[name]]
    while coming:
        other = coming.pop()
        if other not in found:
            found.add(other)
            coming.extend(imports[other])
    return found


def test_no_modules_import_each_other() -> None:
    """Types that know each other share a module, or one of them is a Protocol below: see ``driver_port``."""
    found = circles(graph(PACKAGE))
    assert [group for group in found if frozenset(group) not in ALLOWED] == []
    assert {frozenset(group) for group in found} >= ALLOWED  # what is allowed is there


def test_a_circle_would_be_seen(tmp_path: Path) -> None:
    """Also one that is there for types only, in a function, by ``from`` a package, or by way of a third module."""
    package = tmp_path / "house"
    package.mkdir()
    sources = {
        "__init__": "from house import above",
        "above": "from house.left import a",
        "left": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import house.right",
        "right": "def late():\n    from house import third",
        "third": "from house.left import a\nimport json",
        "below": "",
    }
    for name, source in sources.items():
        (package / f"{name}.py").write_text(source, "utf-8")
    assert circles(graph(package)) == [["house.left", "house.right", "house.third"]]
