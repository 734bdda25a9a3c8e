"""A payload that cannot be decoded here, in the place of its text.

One such payload breaks nothing that it is only a part of: no listing, no page of a stream, no claim of many workflows.
It is no JSON, so no parser takes it for a value: whoever needs the value raises its ``error``, and a listing, which
shows what it cannot parse as a text, shows why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from dbosflow.errors import CodecError


class Unreadable(str):
    """What stands in the place of the text."""

    __slots__ = ("error",)

    error: CodecError

    def __new__(cls, error: CodecError) -> Self:
        """A text for people, without brackets: it may look like no part of a JSON document."""
        words = str(error).translate(str.maketrans("[]{}", "()()"))
        found = super().__new__(cls, f"<unreadable: {words}>")
        found.error = error
        return found


def readable(text: str | None) -> str | None:
    """``text``. Raises its error if it stands for a payload that cannot be decoded here."""
    if isinstance(text, Unreadable):
        raise text.error.with_traceback(None)
    return text
