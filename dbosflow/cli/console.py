"""Output for people and programs: lines, tables, values and JSON on stdout, error messages on stderr."""

from __future__ import annotations

import dataclasses
import json
import os
import select
import stat
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from _typeshed import DataclassInstance

_LONGEST_SUMMARY = 80
"""Characters: a column of a table on a terminal of usual width."""


def prepare() -> None:
    """Makes stdout write each line at once, and never fail for a character that the terminal cannot show.

    A standard stream that whoever started the program has closed is opened on nothing, before a connection gets its
    descriptor: what a library writes there would go to the database, and uvloop aborts the process.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 (for as long as the process)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")


def say(text: str = "") -> None:
    """Prints one line of the result."""
    sys.stdout.write(f"{text}\n")


def complain(text: str) -> None:
    """Prints an error message."""
    sys.stderr.write(f"dbosflow: {text}\n")


def complain_of(error: BaseException, *, in_json: bool) -> None:
    """Prints an error, for people or for programs."""
    if in_json:
        sys.stderr.write(f"{document({'error': described(error)})}\n")
    else:
        complain(message_of(error))


def message_of(error: BaseException) -> str:
    """The message of an error."""
    return str(error).strip() or type(error).__name__


def described(error: BaseException) -> dict[str, str]:
    """An error in the form that all JSON documents use."""
    return {"type": type(error).__name__, "message": message_of(error)}


def is_reader_gone(stream: TextIO) -> bool:
    """Whether ``stream`` is a pipe whose other end is closed, so that nothing written to it will be read."""
    try:
        descriptor = stream.fileno()
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return False
        poll = select.poll()
    except (OSError, ValueError, AttributeError):  # the stream is no real file, or the system has no poll()
        return False
    poll.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose columns are as wide as their contents. Nothing is cut, so that ids can be copied."""
    lines = [[visible(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def visible(text: str) -> str:
    """``text`` on one line, with escapes for what a terminal would interpret."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def as_text(value: str) -> str:
    """A user's text unchanged; on a terminal with escapes for what that would interpret, except tabs and line ends."""
    if not sys.stdout.isatty():
        return value
    return "".join(c if c in "\t\n" else visible(c) for c in value)


def as_json(value: Any) -> str:
    """A payload in full."""
    return json.dumps(value, ensure_ascii=False)


def document(value: Any) -> str:
    """The output of ``--json``: records by the names of their fields, times as ISO 8601 in UTC, all on one line.

    It is ASCII only, so it is valid JSON in any output encoding.
    """
    return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return fields_of(value)
    raise TypeError(value)


def fields_of(record: DataclassInstance) -> dict[str, Any]:
    """A record by the names of its fields. Not made by ``asdict``, which recurses into payloads."""
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def summary(value: Any) -> str:
    """A payload, cut to fit a table."""
    text = as_json(value)
    return text if len(text) <= _LONGEST_SUMMARY else f"{text[: _LONGEST_SUMMARY - 3]}..."


def error_line(error: dict[str, Any]) -> str:
    """The record of an error, in the form in which Python prints errors."""
    return f"{error.get('type')}: {error.get('message')}"


def counted(number: int, one: str, many: str = "") -> str:
    """A number with what it counts: ``one`` of it, or ``many`` (by default ``one`` with an s)."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def moment(at: datetime | None) -> str:
    """A time in this machine's time zone."""
    return "-" if at is None else at.astimezone().isoformat(" ", "milliseconds")


def duration(seconds: float) -> str:
    """A duration in a suitable unit."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:  # noqa: PLR2004 (a minute)
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
