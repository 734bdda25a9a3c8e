"""The examples of the pages in docs/ run, and print what the pages say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dbosflow.config import DATABASE_URL_VARIABLE

ROOT = Path(__file__).parents[2]
PAGES = sorted(ROOT.joinpath("docs").glob("*.md"))
PATIENCE = 60.0

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SHOWN = re.compile(r"print\(.*\)  # (.*)$", re.MULTILINE)


def examples() -> list[Any]:
    """Every Python block with what the page says that it prints."""
    found = []
    for page in PAGES:
        blocks = _BLOCK.findall(page.read_text("utf-8"))
        for number, (language, text) in enumerate(blocks):
            if language == "python":
                following = blocks[number + 1] if number + 1 < len(blocks) else ("", "")
                said = following[1].splitlines() if following[0] == "text" else _said(text)
                found.append(pytest.param(text, said, id=f"{page.stem}-{number}"))
    return found


def _said(text: str) -> list[str]:
    return [line for shown in _SHOWN.findall(text) for line in shown.replace("], [", "]\n[").splitlines()]


@pytest.mark.parametrize(("text", "said"), examples())
def test_an_example_prints_what_its_page_says(database_url: str, tmp_path: Path, text: str, said: list[str]) -> None:
    """Each is a program of its own."""
    script = tmp_path / "example.py"
    script.write_text(text, "utf-8")
    python_path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, script],
        env={**os.environ, DATABASE_URL_VARIABLE: database_url, "PYTHONPATH": python_path},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert [line for line in printed if line in said] == said, printed
    assert said


def test_the_links_of_the_pages_lead_somewhere() -> None:
    """Within the checkout."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", _BLOCK.sub("", page.read_text("utf-8"))):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_glossary_names_files_that_are_there() -> None:
    """Each word says where it lives: in the checkout, in ``dbosflow`` or in a room of ``dbosflow/_runtime``."""
    page = ROOT.joinpath("docs", "glossary.md").read_text("utf-8")
    named = [
        name
        for places in re.findall(r"^\|.*\|(.*)\|$", page, re.MULTILINE)
        for name in re.findall(r"`([^`]+)`", places)
    ]
    within = (ROOT, ROOT / "dbosflow", ROOT / "dbosflow" / "_runtime")
    assert len(named) > 40
    assert [name for name in named if not any((place / name).exists() for place in within)] == []


def test_the_glossary_is_in_alphabetical_order_and_explains_each_word_once() -> None:
    page = ROOT.joinpath("docs", "glossary.md").read_text("utf-8")
    words = re.findall(r"^\| ([a-z][^|]*?) \|", page, re.MULTILINE)[1:]
    assert words == sorted(set(words))
