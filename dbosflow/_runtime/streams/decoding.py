"""The values of a part of a stream's block, as a reader's type takes them.

How values are packed into blocks is nobody's business but the writer's and the compactor's. So only what is wanted has
to be of the type, and what comes before a value that is not is given all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbosflow import serde

if TYPE_CHECKING:
    from dbosflow.serde import Codec


def decoded(
    text: str, count: int, first: int, last: int, codec: Codec[list[Any]] | None
) -> tuple[list[Any], str | None]:
    """Of a block's ``count`` values those from ``first`` to before ``last``, and why there are fewer if there are."""
    if codec is None:
        values = serde.for_people(text)
        if not isinstance(values, list) or len(values) != count:
            return [], _not_there(count)
        return values[first:last], None
    if first == 0 and last == count:
        try:
            values = codec.load(text)
        except Exception:  # noqa: BLE001 (the code of a type of the user's may raise anything; the values tell which)
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


def _loaded(texts: list[str], codec: Codec[list[Any]]) -> tuple[list[Any], str | None]:
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
