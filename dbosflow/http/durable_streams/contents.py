"""Bodies and messages: what the bytes of a request are in the database, and back.

A stream of ``application/json`` holds JSON values, a body of another one is one message: a JSON string if it is text,
else an object with its bytes in base64. The database keeps the text of each value as it came, but for what is not
ASCII, which it keeps as escapes, so that it does not depend on the encoding of the database.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from typing import Any, NoReturn

from dbosflow.http.durable_streams.refusals import Refusal
from dbosflow.serde import items_of
from dbosflow.streams.standalone import Content, media_type

JSON = "application/json"
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_BYTES = "base64"


def is_json(content_type: str) -> bool:
    """Whether messages are JSON values."""
    return media_type(content_type) == JSON


def is_text(content_type: str) -> bool:
    """Whether messages can stand in an event stream as they are."""
    return is_json(content_type) or media_type(content_type).startswith("text/")


def content_of(body: bytes, content_type: str, *, creates: bool = False) -> Content:
    """The messages in a body.

    Raises:
        Refusal: 400, if it is not valid, or an empty array, unless it ``creates`` a stream.
    """
    if not body:
        return _content([])
    if not is_json(content_type):
        return _content([_message(body, content_type)])
    messages = _json_messages(body)
    if not messages and not creates:
        raise Refusal(400, "an empty array appends nothing")
    return _content(messages)


def body_of(messages: list[str], content_type: str) -> bytes:
    """Messages as a body: an array of JSON values, or all bytes one after the other."""
    if is_json(content_type):
        return f"[{','.join(messages)}]".encode()
    return b"".join(map(_bytes_of, messages))


def cut(values: str, length: int, content_type: str) -> Content | None:
    """The first part of a block: so many JSON values, or bytes of its one message; ``None`` if there are fewer."""
    messages = items_of(values)
    if is_json(content_type):
        return None if length > len(messages) else _content(messages[:length])
    body = _bytes_of(messages[0])
    return None if length > len(body) else _content([_message(body[:length], content_type)])


def _content(messages: list[str]) -> Content:
    if not messages:
        return Content(0, None, 0)
    values = f"[{','.join(messages)}]"
    return Content(len(messages), values, len(values))


def _message(body: bytes, content_type: str) -> str:
    if is_text(content_type):
        try:
            return json.dumps(body.decode())
        except UnicodeDecodeError:
            pass  # a part of a character, or of another encoding
    return json.dumps({_BYTES: b64encode(body).decode()})


def _bytes_of(message: str) -> bytes:
    found = json.loads(message)
    return found.encode() if isinstance(found, str) else b64decode(found[_BYTES])


def _json_messages(body: bytes) -> list[str]:
    try:
        text = body.decode()
        found: Any = json.loads(text, parse_constant=_refuse)
        messages = items_of(text) if isinstance(found, list) else [text.strip()]
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the body is not valid JSON: {error}") from None
    return [_NOT_ASCII.sub(_escaped, one) for one in messages]


def _escaped(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


def _refuse(word: str) -> NoReturn:
    msg = f"{word} is no JSON"
    raise ValueError(msg)
