"""What the pages about promises and operations name is there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / "promises.md", ROOT / "docs" / "operations.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_file_and_command_of_a_page_exists(page: Path) -> None:
    """A test that was renamed is renamed there, too."""
    text = page.read_text("utf-8")
    files = set(re.findall(r"\b(?:tests|dbosflow|docs)/[\w./]+\.\w+", text))
    modules = set(re.findall(r"python -m (tests\.\w+)", text))
    folders = set(re.findall(r"python -m pytest (\S+?)`", text))
    assert files or modules
    assert not [name for name in files | folders if not ROOT.joinpath(name).exists()]
    assert not [name for name in modules if importlib.util.find_spec(name) is None]


def test_each_promise_names_a_test() -> None:
    """All of them, in a row each."""
    rows = re.findall(r"^\| (P\d+) \|.*\| (`tests/.*)\|$", PAGES[0].read_text("utf-8"), re.MULTILINE)
    assert len(rows) >= 12
    assert [name for name, _ in rows] == [f"P{number}" for number in range(1, len(rows) + 1)]
