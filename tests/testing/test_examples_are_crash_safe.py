"""The workflows that the README, the pages and the examples show are crash-safe, every one.

But for the one whose step fails in the first attempt of every owner: with a crash that is once too often.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from typing import Any

import pytest

from tests.testing.project import ROOT

ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "report": ("crashes", 2),
    "warmest": (["Oslo", "Rome"],),
    "basket": ([1, 2],),
    "shout_words": ("nothing lost",),
    "copying": (["one", "two", "three"],),
    "checkout": (100,),
    "newsletter": (["ann", "bob"],),
}

SWEEP = """
import asyncio, time
from dbosflow.testing import assert_crash_safe

time.sleep = lambda seconds: None  # the examples' steps take their time
report = assert_crash_safe(globals()[{name!r}], *{arguments!r})
print("points", report.points, "missed", len(report.missed))
"""


def shown() -> list[Any]:
    """Each program that defines one of the workflows: only what it defines, not what it runs."""
    texts = [path.read_text("utf-8") for path in sorted(ROOT.joinpath("examples").glob("*.py"))]
    for page in ("README.md", "docs/workflows.md", "docs/streams.md", "docs/testing.md"):
        texts += re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)
    found: dict[str, str] = {}
    for text in texts:
        module = ast.parse(text)
        kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign)
        kept: list[ast.stmt] = [node for node in module.body if isinstance(node, kinds)]
        for node in kept:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in ARGUMENTS:
                found.setdefault(node.name, ast.unparse(ast.Module(kept, [])))
    assert found.keys() == ARGUMENTS.keys()
    return [pytest.param(name, text, id=name) for name, text in found.items()]


@pytest.mark.parametrize(("name", "text"), shown())
def test_an_example_survives_a_crash_at_every_operation(admin_url: str, name: str, text: str) -> None:
    """With nothing missed, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text + SWEEP.format(name=name, arguments=ARGUMENTS[name])],
        env={**os.environ, "PYTHONPATH": str(ROOT), "DBOSFLOW_TEST_DATABASE_URL": admin_url},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    points, missed = map(int, re.findall(r"\d+", done.stdout))
    assert points > 4
    assert missed <= points // 2
