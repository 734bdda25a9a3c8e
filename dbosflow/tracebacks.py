"""The text of a traceback for a record: short, the author's own code first, and without the values of variables."""

from __future__ import annotations

import linecache
import sysconfig
import traceback
from pathlib import Path
from typing import Any, NamedTuple

LONGEST = 6000
"""The most characters of a traceback in a record, causes included."""
_OURS = str(Path(__file__).parent)
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_FRAMES = 16
"""The number of frames of the author's code: the innermost ones."""
_LIBRARY_FRAMES = 8
"""Of other code, if there is some of the author's: where it was called matters more than how deep it went."""
_LONGEST_LINE = 300
"""Characters of a line of source: a data set in one line would fill the record."""
_LONGEST_CHAIN = 5
"""Exceptions of a chain, from the last one on: what led to it is mostly near, and a chain may be endless."""
_STATE: Any = vars(BaseException)["__dict__"]


class _Frame(NamedTuple):
    file: str
    line: int
    function: str

    @property
    def is_library(self) -> bool:
        return self.file.startswith((*_LIBRARIES, "<frozen"))


def text_of(error: BaseException, longest: int) -> str | None:
    """Where ``error`` was raised, then its causes, in at most ``longest`` characters; ``None`` if nothing is known."""
    parts, seen, one = [_frames(error)], {id(error)}, _cause(error)
    while one is not None and id(one[1]) not in seen and len(seen) < _LONGEST_CHAIN:
        how, cause = one
        seen.add(id(cause))
        parts.append(f"{how}: {summary(cause)}\n{_frames(cause)}")
        one = _cause(cause)
    text = printable("".join(parts).rstrip())
    return (text if len(text) <= longest else f"{text[:longest]}...") or None


def text_with_notes(error: BaseException) -> str:
    """The traceback with the notes, for a log. A replayed step's traceback is a note, which a log would not show."""
    notes = [note for note in notes_of(error) if isinstance(note, str)]
    return printable("\n".join([text_of(error, LONGEST) or "", *notes]).strip()[: 2 * LONGEST])


def state_of(error: BaseException) -> dict[Any, Any]:
    """The attributes of an exception, without running code of its class."""
    state: dict[Any, Any] = _STATE.__get__(error)
    return state


def notes_of(error: BaseException) -> list[Any]:
    """The notes of an exception."""
    notes = state_of(error).get("__notes__")
    return notes if isinstance(notes, list) else []


def add_note(error: BaseException, note: str) -> None:
    """Adds a note like ``error.add_note``, also if the class has no room for it."""
    state_of(error)["__notes__"] = [*notes_of(error), note]


def summary(error: BaseException) -> str:
    """The exception on one line."""
    try:
        text = "".join(traceback.format_exception_only(type(error), error)).strip()
    except Exception:  # noqa: BLE001 (from code of its class)
        text = type(error).__name__
    line = printable(" ".join(text.split()))
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}..."


def printable(text: str) -> str:
    """``text`` with escapes for the characters that a log or a terminal would interpret or refuse."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def _cause(error: BaseException) -> tuple[str, BaseException] | None:
    if error.__cause__ is not None:
        return "caused by", error.__cause__
    if error.__context__ is not None and not error.__suppress_context__:
        return "while handling", error.__context__
    return None


def _frames(error: BaseException) -> str:
    frames = [
        _Frame(frame.f_code.co_filename, line, frame.f_code.co_qualname)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not frame.f_code.co_filename.startswith(_OURS)
    ]
    own = [place for place, frame in enumerate(frames) if not frame.is_library][-_FRAMES:]
    others = [place for place, frame in enumerate(frames) if frame.is_library]
    others = others[-(_LIBRARY_FRAMES if own else _FRAMES) :]
    kept = sorted(own + others)
    lines = [f"({len(frames) - len(kept)} more frames)"] if len(frames) > len(kept) else []
    for place in kept:
        frame = frames[place]
        lines.append(f'File "{frame.file}", line {frame.line}, in {frame.function}')
        if source := linecache.getline(frame.file, frame.line).strip():
            lines.append(f"  {source[:_LONGEST_LINE]}")
    return "".join(f"{line}\n" for line in lines)
