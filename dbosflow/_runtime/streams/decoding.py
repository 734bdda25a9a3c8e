"""Decodes a part of a stream's block by a reader's type.

How values are packed into blocks concerns only the writer and the compactor. So only the wanted values have to be of
the type, and the values before one that is not are returned all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbosflow import serde

if TYPE_CHECKING:
    from dbosflow._runtime.streams.position import Loader


def decoded(
    text: str, count: int, first: int, last: int, codec: Loader[list[Any]] | None
) -> tuple[list[Any], str | None]:
    """The values of a block from ``first`` to before ``last``, and the error if one of them could not be decoded."""
    if codec is None:
        values = serde.for_people(text)
        if not isinstance(values, list) or len(values) != count:
            return [], _not_there(count)
        return values[first:last], None
    if first == 0 and last == count:
        try:
            values = codec.load(text)
        except Exception:  # noqa: BLE001 (a type of the user's may raise anything; the values one by one show which)
            values = []
        if len(values) == count:
            return values, None
    try:
        texts = serde.items_of(text)
    except ValueError:
        texts = []
    if len(texts) != count:
        return [], _not_there(count)
    return _loaded(texts[first:last], codec)


def _loaded(texts: list[str], codec: Loader[list[Any]]) -> tuple[list[Any], str | None]:
    try:
        return codec.load(f"[{','.join(texts)}]"), None
    except Exception:  # noqa: BLE001 (see above)
        values: list[Any] = []
    for text in texts:
        try:
            values += codec.load(f"[{text}]")
        except Exception as unfit:  # noqa: BLE001 (see above)
            return values, str(unfit) or type(unfit).__name__
    return values, None


def _not_there(count: int) -> str:
    return f"the row there holds no {count} values"
