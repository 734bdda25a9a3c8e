"""The demo's output: words as they arrive, and events in between."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

from dbosflow.cli.console import visible

if TYPE_CHECKING:
    from collections.abc import Collection

_WIDEST = 100
"""Columns of text: wider lines are hard to read."""
_BOLD_RED, _BOLD_GREEN, _DIM, _PLAIN = "\x1b[1;31m", "\x1b[1;32m", "\x1b[2m", "\x1b[0m"


class Page:
    """Writes to stdout: in colour on a terminal, elsewhere as plain text without control characters."""

    def __init__(self) -> None:
        self._coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self._width = min(shutil.get_terminal_size((80, 24)).columns, _WIDEST)
        self._column = 0
        self._is_blank = True  # whether the line above is empty

    def word(self, word: str, *, ends_paragraph: bool) -> None:
        """Writes the next word at once."""
        text = visible(word)
        if self._column and self._column + 1 + len(text) > self._width:
            self._write("\n")
            self._column = 0
        self._write(f" {text}" if self._column else text)
        self._column += len(text) + bool(self._column)
        self._is_blank = False
        if ends_paragraph:
            self._break()
            self.blank()
        sys.stdout.flush()

    def line(self, text: str) -> None:
        """Writes a line of its own."""
        self._break()
        self._write(f"{text}\n")
        self._is_blank = False

    def blank(self) -> None:
        """Writes an empty line, unless there is one already."""
        self._break()
        if not self._is_blank:
            self._write("\n")
        self._is_blank = True

    def good(self, text: str) -> None:
        """Writes a line about a success."""
        self._note(text, _BOLD_GREEN)

    def bad(self, text: str) -> None:
        """Writes a line about a failure."""
        self._note(text, _BOLD_RED)

    def faint(self, text: str) -> None:
        """Writes a line of minor importance."""
        self.line(self._in(_DIM, text))

    def table(self, headings: Collection[str], rows: Collection[tuple[Collection[str], bool]]) -> None:
        """Writes a table of rows, each with whether its check holds."""
        cells = [list(headings), *(list(row) for row, _ in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        self.blank()
        self.faint("  ".join(cell.ljust(width) for cell, width in zip(cells[0], widths, strict=True)).rstrip())
        for row, (_, holds) in zip(cells[1:], rows, strict=True):
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.line(f"{line}  {self._in(_BOLD_GREEN, 'ok') if holds else self._in(_BOLD_RED, 'DIFFERS')}")

    def _note(self, text: str, colour: str) -> None:
        self.blank()
        self.line(self._in(colour, f"---- {text}"))
        self.blank()

    def _break(self) -> None:
        if self._column:
            self._write("\n")
            self._column = 0
        sys.stdout.flush()

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._coloured else text

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
