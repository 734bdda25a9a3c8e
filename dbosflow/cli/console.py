"""What people and programs read: lines, tables, values and JSON on stdout, complaints on stderr."""

from __future__ import annotations

import dataclasses
import json
import os
import select
import stat
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from _typeshed import DataclassInstance

_LONGEST_SUMMARY = 80


def prepare() -> None:
    """Makes stdout write each line at once, and never fail for a character that the terminal does not know."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")


def say(text: str = "") -> None:
    """One line of the result."""
    sys.stdout.write(f"{text}\n")


def complain(text: str) -> None:
    """Why it did not work."""
    sys.stderr.write(f"dbosflow: {text}\n")


def complain_of(error: BaseException, *, in_json: bool) -> None:
    """Why it did not work, for people or for programs."""
    if in_json:
        sys.stderr.write(f"{document({'error': described(error)})}\n")
    else:
        complain(message_of(error))


def message_of(error: BaseException) -> str:
    """An error in words."""
    return str(error).strip() or type(error).__name__


def described(error: BaseException) -> dict[str, str]:
    """An error as every JSON document shows one."""
    return {"type": type(error).__name__, "message": message_of(error)}


def is_reader_gone(stream: TextIO) -> bool:
    """Whether nobody will ever read what ``stream`` writes: it is a pipe whose other end is closed."""
    try:
        descriptor = stream.fileno()
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return False
        poll = select.poll()
    except (OSError, ValueError, AttributeError):  # no real file; no poll on this system
        return False
    poll.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as they must be; nothing is cut, so an id can be copied."""
    lines = [[visible(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def visible(text: str) -> str:
    """``text`` on one line, with what a terminal would obey written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def as_text(value: str) -> str:
    """Somebody's text as it is; on a terminal without what that would obey, but for tabs and line ends."""
    if not sys.stdout.isatty():
        return value
    return "".join(c if c in "\t\n" else visible(c) for c in value)


def as_json(value: Any) -> str:
    """A payload, in full."""
    return json.dumps(value, ensure_ascii=False)


def document(value: Any) -> str:
    """What ``--json`` prints: records by the names of their fields, times as ISO 8601 in UTC, all of it on one line.

    ASCII only, so it is JSON whichever encoding the output has.
    """
    return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return fields_of(value)
    raise TypeError(value)


def fields_of(record: DataclassInstance) -> dict[str, Any]:
    """A record by the names of its fields. Not ``asdict``, which descends into payloads as deep as they are."""
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def summary(value: Any) -> str:
    """A payload, as much of it as fits a table."""
    text = as_json(value)
    return text if len(text) <= _LONGEST_SUMMARY else f"{text[: _LONGEST_SUMMARY - 3]}..."


def error_line(error: dict[str, Any]) -> str:
    """An error's record as Python prints errors."""
    return f"{error.get('type')}: {error.get('message')}"


def moment(at: datetime | None) -> str:
    """A time on this machine's clock."""
    return "-" if at is None else at.astimezone().isoformat(" ", "milliseconds")


def duration(seconds: float) -> str:
    """A time span, in the unit that suits it."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:  # noqa: PLR2004 (a minute)
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
