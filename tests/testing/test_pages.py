"""The pytest examples of docs/testing.md are tests that pass. Its programs run with those of the other pages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.testing.project import ROOT, run_pytest

if TYPE_CHECKING:
    from pathlib import Path


def test_the_pytest_examples_pass_together_as_the_page_has_them(tmp_path: Path) -> None:
    """The first block is the ``conftest.py``."""
    page = ROOT.joinpath("docs", "testing.md").read_text("utf-8")
    conftest, *examples = re.findall(r"^```py\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert examples
    tmp_path.joinpath("conftest.py").write_text(conftest, "utf-8")
    for number, text in enumerate(examples):
        tmp_path.joinpath(f"test_{number}.py").write_text(text, "utf-8")
    done = run_pytest(tmp_path)
    assert done.returncode == 0, done.stdout
    assert f"{len(examples)} passed" in done.stdout
