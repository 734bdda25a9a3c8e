"""The text that the demo streams: a file in pieces of at most a paragraph."""

from __future__ import annotations

import os
import sys
from itertools import accumulate, pairwise
from pathlib import Path

from dbosflow.errors import ConfigurationError

FEWEST_WORDS = 12
SHOWN = 600
"""How many words of the default text are streamed, so that the messages do not scroll away for long."""

_LONGEST_PIECE = 40
_FEWEST_PIECES = 12


def default_file() -> Path:
    """A text that is part of Python: its licence, or else the source of a standard module."""
    standard_library = Path(os.__file__).parent
    beside = [standard_library, Path(sys.base_prefix), Path(sys.base_prefix) / "share" / "doc" / "python"]
    candidates = [
        *(directory / name for directory in beside for name in ("LICENSE.txt", "LICENSE_PYTHON.txt", "LICENSE")),
        standard_library / "os.py",
        Path(__file__),  # without any source of Python: this file exists in any case
    ]
    return next(path for path in candidates if path == Path(__file__) or _is_readable(path))


def read_pieces(path: str | Path, most: int | None = None) -> list[list[str]]:
    """The words of a file by paragraph: of its first paragraphs, up to ``most`` words.

    Long paragraphs are cut, so that words come evenly.

    Raises:
        ConfigurationError: the file cannot be read, or is too short to be interrupted.
    """
    try:
        text = Path(path).read_text("utf-8", errors="replace")
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise ConfigurationError(msg) from error
    count = len(text.split())
    if count < FEWEST_WORDS:
        msg = f"{path} has {count} words; the demo needs {FEWEST_WORDS} to be interrupted on the way"
        raise ConfigurationError(msg)
    longest = min(_LONGEST_PIECE, count // _FEWEST_PIECES)
    pieces = [piece for paragraph in paragraphs(text) for piece in cut(paragraph, longest)]
    upto = accumulate(map(len, pieces), initial=0)
    return [piece for piece, before in zip(pieces, upto, strict=False) if most is None or before < most]


def paragraphs(text: str) -> list[list[str]]:
    """The words of each paragraph. Paragraphs are separated by empty lines."""
    found: list[list[str]] = [[]]
    for line in text.splitlines():
        words = line.split()
        if words:
            found[-1] += words
        elif found[-1]:
            found.append([])
    return [paragraph for paragraph in found if paragraph]


def cut(words: list[str], longest: int) -> list[list[str]]:
    """The words in pieces of about equal length, none longer than ``longest``."""
    count = -(-len(words) // longest)
    size, rest = divmod(len(words), count)
    starts = [number * size + min(number, rest) for number in range(count + 1)]
    return [words[start:end] for start, end in pairwise(starts)]


def _is_readable(path: Path) -> bool:
    try:
        return len(path.read_text("utf-8", errors="replace").split()) >= FEWEST_WORDS
    except OSError:
        return False
