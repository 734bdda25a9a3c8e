"""A workflow's name belongs to one function: a second one is refused, and the same one that is loaded anew replaces."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import runpy
import subprocess
import sys
from textwrap import dedent
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

import pytest

from dbosflow import workflow
from dbosflow.errors import DefinitionError
from dbosflow.registry import registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE = 60.0


class Write(Protocol):
    """How a test writes a module."""

    def __call__(self, module: str, text: str) -> Path: ...


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module that can be imported. Each ``NAME`` in it is a name of the test's own."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    name = f"flow_{uuid4().hex}"
    monkeypatch.setenv("NAME", name)
    known = set(sys.modules)

    def write(module: str, text: str) -> Path:
        path = tmp_path / f"{module}.py"
        path.write_text("from dbosflow import workflow\n" + dedent(text).replace("NAME", name))
        importlib.invalidate_caches()
        return path

    yield write
    for module in set(sys.modules) - known:
        if module.startswith("names_"):
            del sys.modules[module]


ONE = """
@workflow
def NAME() -> int:
    return 1
"""
TWO = """
# another line
@workflow
def NAME() -> int:
    return 2
"""


def value_of(path: Path) -> int:
    """What the known workflow of the test's name gives."""
    name = next(line for line in path.read_text().splitlines() if "def flow_" in line)[4:41]
    found = registry.get(name)
    assert found is not None
    value: int = found.function()
    return value


def test_a_second_workflow_function_of_a_name_is_refused(write: Write) -> None:
    """In another module, in another line of the same one, in a class; the error names both places."""
    write("names_first", ONE)
    second = write("names_second", TWO)
    importlib.import_module("names_first")
    with pytest.raises(DefinitionError, match=r"names_first\.py:\d+\).*names_second\.py:\d+\).*@workflow\(name="):
        importlib.import_module("names_second")
    assert value_of(second) == 1
    write("names_twice", ONE + TWO)
    with pytest.raises(DefinitionError, match=r"names_first"):
        importlib.import_module("names_twice")


@pytest.mark.parametrize(
    "twice",
    [
        ONE + TWO,
        "class Some:\n    @workflow(name='NAME')\n    def one(): ...\n    @workflow(name='NAME')\n    def one(): ...",
        "if True:\n    @workflow\n    def NAME(): ...\n    @workflow\n    def NAME(): ...",
        "def f():\n    @workflow(name='NAME')\n    def g(): ...\n    @workflow(name='NAME')\n    def g(): ...\nf()",
        "a = workflow(name='NAME')(lambda: 1)\nb = workflow(name='NAME')(lambda: 2)",
        "from functools import wraps\n@wraps(len)\n@workflow\ndef NAME(): ...\n@workflow\ndef NAME(): ...",
    ],
)
def test_a_second_workflow_function_of_a_name_in_one_module_is_refused(write: Write, twice: str) -> None:
    """It would take the place of the first, whose recoveries would run the other one."""
    write("names_twice", twice)
    with pytest.raises(DefinitionError, match="two functions are workflows"):
        importlib.import_module("names_twice")


def test_a_module_that_is_reloaded_replaces_its_workflows(write: Write) -> None:
    """As it was, and changed, with the function in another line; also what its functions make."""
    path = write("names_again", ONE)
    module = importlib.import_module("names_again")
    importlib.reload(module)
    assert value_of(path) == 1
    write("names_again", TWO)
    importlib.reload(module)
    assert value_of(path) == 2


def test_a_module_that_is_imported_anew_replaces_its_workflows(write: Write) -> None:
    """It was removed from the modules; so tests import things again."""
    path = write("names_anew", ONE)
    importlib.import_module("names_anew")
    del sys.modules["names_anew"]
    write("names_anew", TWO)
    importlib.import_module("names_anew")
    assert value_of(path) == 2


def test_a_workflow_function_that_was_deleted_frees_its_name(write: Write) -> None:
    write("names_deleted", ONE + "\ndel NAME\n" + TWO)
    importlib.import_module("names_deleted")


def test_the_same_file_under_two_module_names_defines_its_workflows_once(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script that is imported as a module as well, and what pytest imports under a name of its own."""
    path = write("names_script", ONE)
    importlib.import_module("names_script")
    runpy.run_path(str(path))
    runpy.run_path(str(path), run_name="__main__")
    spec = importlib.util.spec_from_file_location("names_other", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "names_other", module)
    spec.loader.exec_module(module)
    assert value_of(path) == 1


def test_a_script_and_its_import_run_together(write: Write) -> None:
    """``python app.py``, where another module imports ``app``."""
    write("names_helper", "import names_app\n")
    path = write("names_app", ONE + "\nif __name__ == '__main__':\n    import names_helper\n    print(NAME())\n")
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.stdout, done.stderr) == ("1\n", "")


def cell(text: str, file: str, module: ModuleType) -> None:
    """Runs a notebook's cell."""
    exec(compile(dedent(text), file, "exec"), vars(module))


def test_a_notebook_cell_that_is_run_anew_replaces_its_workflows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a file name of its own; within one the name is taken once."""
    name = f"flow_{uuid4().hex}"
    notebook = ModuleType("names_notebook")
    vars(notebook)["workflow"] = workflow
    monkeypatch.setitem(sys.modules, "names_notebook", notebook)
    one, two = ONE.replace("NAME", name), TWO.replace("NAME", name)
    for number, text in enumerate((one, one, two, one)):
        cell(text, f"/tmp/ipykernel_1/{number}.py", notebook)
        cell(text, f"<ipython-input-{number}>", notebook)
    found: Any = registry.get(name)
    assert found.function() == 1
    with pytest.raises(DefinitionError):
        cell(one + two, "<ipython-input-9>", notebook)
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    cell(two, "<stdin>", notebook)
    cell("\n" + one, "<stdin>", notebook)


def test_two_doctests_may_use_one_workflow_name(write: Write) -> None:
    """Each runs in a namespace of its own. One that takes the name of a workflow of its module is refused."""
    example = ">>> @workflow(name='NAME-example')\n    ... def example(): return 1\n    >>> example()\n    1\n"
    text = f"def a():\n    '''\n    {example}    '''\ndef b():\n    '''\n    >>> 1\n    1\n    {example}    '''\n"
    write("names_docs", text)
    assert doctest.testmod(importlib.import_module("names_docs")).failed == 0
    write("names_clash", ONE + text.replace("NAME-example", "NAME"))
    module = importlib.import_module("names_clash")
    assert doctest.testmod(module, report=False).failed > 0


def test_a_function_that_makes_workflows_may_be_called_again() -> None:
    """The same line again; two lines are two functions."""
    name = f"made_{uuid4().hex}"

    def made(value: int) -> Any:
        @workflow(name=name)
        def flow() -> int:
            return value

        return flow

    assert [made(1)(), made(2)()] == [1, 2]
    found: Any = registry.get(name)
    assert found.function() == 2
