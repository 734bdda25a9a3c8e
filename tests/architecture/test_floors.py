"""The package's shape: floors that only look down, all SQL in one place, and one list of public names."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import dbosflow
from dbosflow import errors, testing

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(dbosflow.__file__).parent

# A statement, as opposed to a sentence that begins with the same word.
STATEMENT = re.compile(
    r"\s*(SELECT\s|INSERT\s+INTO\s|UPDATE\s+\S+\s+SET\s|DELETE\s+FROM\s|WITH\s+\w+\s+AS\s|LISTEN\s|UNLISTEN\s|NOTIFY\s)"
)

# Floor 2: the rooms that hold SQL. The embedded server's is for its own housekeeping.
SQL_ROOMS = ("_store", "_embedded")


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Every module of the package by its path below it."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), source(path)


def source(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def texts(module: ast.Module) -> Iterator[tuple[int, str]]:
    """The string constants of ``module``, also those inside f-strings, by line."""
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


@pytest.mark.parametrize("room", ["_runtime", "_store"])
def test_a_room_lists_what_is_in_it(room: str) -> None:
    """The first thing that a newcomer reads of it."""
    directory = PACKAGE / room
    listed = (ast.get_docstring(source(directory / "__init__.py")) or "").split()
    there = {one.stem for one in directory.iterdir() if one.suffix == ".py" or (one / "__init__.py").exists()}
    assert there - {"__init__"} <= set(listed)


def test_all_the_sql_is_in_the_store() -> None:
    """A reviewer of a query, an index or a lock has one room to look into."""
    found = [
        f"{path}:{line}"
        for path, module in sources()
        if not path.startswith(SQL_ROOMS)
        for line, text in texts(module)
        if STATEMENT.match(text)
    ]
    assert found == []


def test_a_statement_would_be_seen() -> None:
    """The search above finds what it looks for, also in an f-string, and does not take prose for it."""
    statements = ast.parse(
        """f"SELECT {x} FROM t"; "\\n LISTEN channel"; "UPDATE t SET x = 1"; "WITH a AS (SELECT 1) TABLE a" """
    )
    prose = ast.parse("""'Update the URL.'; 'selected'; 'with a connection as it is'; 'Delete it.'""")
    assert sum(bool(STATEMENT.match(text)) for _, text in texts(statements)) == 4
    assert not any(STATEMENT.match(text) for _, text in texts(prose))


def test_the_public_names_are_listed() -> None:
    """``__all__`` is what the package offers: nothing is public by accident, and nothing is missing."""
    module = source(PACKAGE / "__init__.py")
    bound = {
        alias.asname or alias.name.partition(".")[0]
        for node in module.body
        if isinstance(node, ast.Import | ast.ImportFrom) and getattr(node, "module", None) != "__future__"
        for alias in node.names
    }
    bound |= {
        node.name for node in module.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    bound |= {
        target.id
        for node in module.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    public = {name for name in bound if not name.startswith("_")}
    listed = getattr(dbosflow, "__all__", [])
    assert {name for name in listed if not name.startswith("_")} == public
    assert [name for name in listed if not hasattr(dbosflow, name)] == []


def test_the_testing_kit_lists_its_names_and_asks_for_pytest_only_in_its_fixtures() -> None:
    """Running workflows needs no pytest; neither does testing them with something else."""
    module = source(PACKAGE / "testing/__init__.py")
    bound = {alias.name for node in module.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(testing.__all__) == bound
    importing = [
        path
        for path, module in sources()
        for node in ast.walk(module)
        if isinstance(node, ast.Import | ast.ImportFrom) and "pytest" in ast.unparse(node)
    ]
    assert importing == ["testing/fixtures.py"]


def test_the_error_tree_is_drawn_as_it_is() -> None:
    """The drawing in the docstring of ``dbosflow.errors`` is the tree that callers catch by."""
    drawn: dict[str, str | None] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"((?:[│ ] {3})*)([├└]── )?([A-Z]\w*Error|RetryAfter)\b", line):
            depth = len(match[1]) // 4 + bool(match[2])
            above[depth:] = [match[3]]
            drawn[match[3]] = above[depth - 1] if depth else None
    classes = {
        name: item for name, item in vars(errors).items() if isinstance(item, type) and issubclass(item, BaseException)
    }
    parents = {
        name: next((base.__name__ for base in item.__bases__ if base.__name__ in classes), None)
        for name, item in classes.items()
    }
    assert drawn == parents


def test_no_module_is_named_for_nothing() -> None:
    """A room has a name of its own; what fits everywhere belongs nowhere."""
    banned = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}
    assert [path for path, _ in sources() if banned & set(path.removesuffix(".py").split("/"))] == []


def test_the_floors_hold() -> None:
    """No module imports from a floor above its own: the contracts are in pyproject.toml."""
    check = "from importlinter.cli import lint_imports_command as check; check()"
    checked = subprocess.run(
        [sys.executable, "-c", check, "--no-cache"], cwd=PACKAGE.parent, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout
