"""The headers and parameters of requests, checked. Whatever is malformed is answered with 400.

The words are those of the Durable Streams protocol 1.0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dbosflow.config import LARGEST_INTEGER, MAX_IDENTIFIER
from dbosflow.http.durable_streams.refusals import Refusal
from dbosflow.streams.standalone import Producer

if TYPE_CHECKING:
    from starlette.datastructures import Headers, QueryParams

NEXT_OFFSET = "Stream-Next-Offset"
CURSOR = "Stream-Cursor"
UP_TO_DATE = "Stream-Up-To-Date"
CLOSED = "Stream-Closed"
SEQ = "Stream-Seq"
TTL = "Stream-TTL"
EXPIRES_AT = "Stream-Expires-At"
FORKED_FROM = "Stream-Forked-From"
FORK_OFFSET = "Stream-Fork-Offset"
FORK_PART = "Stream-Fork-Sub-Offset"
ENCODING = "Stream-SSE-Data-Encoding"
PRODUCER_ID = "Producer-Id"
PRODUCER_EPOCH = "Producer-Epoch"
PRODUCER_SEQ = "Producer-Seq"
EXPECTED_SEQ = "Producer-Expected-Seq"
RECEIVED_SEQ = "Producer-Received-Seq"

SENT = (
    *(SEQ, TTL, EXPIRES_AT, CLOSED, PRODUCER_ID, PRODUCER_EPOCH, PRODUCER_SEQ, FORKED_FROM, FORK_OFFSET, FORK_PART),
)
"""What clients send, for CORS."""
EXPOSED = (
    *(NEXT_OFFSET, CURSOR, UP_TO_DATE, CLOSED, TTL, EXPIRES_AT, ENCODING, PRODUCER_EPOCH, PRODUCER_SEQ, EXPECTED_SEQ),
    RECEIVED_SEQ,
)
"""What scripts of other hosts may read, for CORS."""

_OFFSET = re.compile(r"(\d{16})_(\d{16})", re.ASCII)
_DIGITS = re.compile(r"\d+", re.ASCII)
_DECIMAL = re.compile(r"0|[1-9]\d*", re.ASCII)
_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+*-]+\s*(;.*)?", re.ASCII)
_LARGEST_EXACT = 2**53 - 1
"""Beyond it, JavaScript's numbers are not exact."""
_LONGEST_TYPE = 255


def token(offset: int) -> str:
    """An offset as clients see it: offsets of a stream sort like their texts."""
    return f"{offset:016d}_{0:016d}"


def offset_of(text: str, what: str = "offset") -> int:
    """The offset that a client has seen."""
    found = _OFFSET.fullmatch(text)
    if found is None:
        raise Refusal(400, f"{what} must be one that this server has given out, -1 or now")
    return int(found[1])


@dataclass(frozen=True, slots=True)
class ReadParameters:
    """Where a read begins, and how it goes on."""

    offset: int | None
    """``None``: at the end."""
    live: str | None
    cursor: str | None


def read_parameters(query: QueryParams) -> ReadParameters:
    """What a GET asks for."""
    offsets, live = query.getlist("offset"), query.get("live")
    if len(offsets) > 1:
        raise Refusal(400, "offset must be given once")
    if live not in {None, "long-poll", "sse"}:
        raise Refusal(400, "live must be long-poll or sse")
    if live and not offsets:
        raise Refusal(400, f"live={live} needs an offset")
    offset = offsets[0] if offsets else "-1"
    place = None if offset == "now" else 0 if offset == "-1" else offset_of(offset)
    return ReadParameters(place, live, query.get("cursor"))


def producer(headers: Headers) -> Producer | None:
    """The producer of an append, and its place in what that sends."""
    given = [headers.get(name) for name in (PRODUCER_ID, PRODUCER_EPOCH, PRODUCER_SEQ)]
    if given == [None, None, None]:
        return None
    name, epoch, seq = given
    if name is None or epoch is None or seq is None:
        raise Refusal(400, f"{PRODUCER_ID}, {PRODUCER_EPOCH} and {PRODUCER_SEQ} must be given together")
    return Producer(_text(PRODUCER_ID, name), _exact(PRODUCER_EPOCH, epoch), _exact(PRODUCER_SEQ, seq))


def stream_seq(headers: Headers) -> str | None:
    """The place of an append in an order of the writers' own."""
    found = headers.get(SEQ)
    return None if found is None else _text(SEQ, found)


def closes(headers: Headers) -> bool:
    """Whether the stream is to be closed."""
    return headers.get(CLOSED, "").lower() == "true"


def content_type(headers: Headers) -> str | None:
    """The content type, if there is a valid one."""
    found = headers.get("content-type", "").strip()
    return found if len(found) <= _LONGEST_TYPE and _MEDIA_TYPE.fullmatch(found) else None


def ttl(headers: Headers) -> int | None:
    """Seconds without an access after which a stream is gone."""
    found = headers.get(TTL)
    if found is None:
        return None
    if headers.get(EXPIRES_AT) is not None:
        raise Refusal(400, f"give {TTL} or {EXPIRES_AT}, not both")
    return _decimal(TTL, found)


def expires_at(headers: Headers) -> datetime | None:
    """The moment at which a stream is gone."""
    found = headers.get(EXPIRES_AT)
    if found is None:
        return None
    try:
        moment = datetime.fromisoformat(found)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Refusal(400, f"{EXPIRES_AT} must be a moment as RFC 3339 writes it") from None


@dataclass(frozen=True, slots=True)
class ForkHeaders:
    """The stream that a new one is to be a copy of, and up to where."""

    source: str
    offset: int | None
    part: int | None


def fork(headers: Headers) -> ForkHeaders | None:
    """What a new stream is to be a copy of."""
    source, offset, part = (headers.get(name) for name in (FORKED_FROM, FORK_OFFSET, FORK_PART))
    if source is None:
        if offset is not None or part is not None:
            raise Refusal(400, f"{FORK_OFFSET} and {FORK_PART} need {FORKED_FROM}")
        return None
    place = None if offset is None else offset_of(offset, FORK_OFFSET)
    return ForkHeaders(source, place, None if part is None else _decimal(FORK_PART, part))


def _text(name: str, value: str) -> str:
    if not value or len(value.encode()) > MAX_IDENTIFIER // 2 or not value.isprintable():
        raise Refusal(400, f"{name} must be a text of 1 to {MAX_IDENTIFIER // 2} bytes")
    return value


def _exact(name: str, value: str) -> int:
    if not _DIGITS.fullmatch(value) or len(value) > len(str(_LARGEST_EXACT)) or int(value) > _LARGEST_EXACT:
        raise Refusal(400, f"{name} must be a whole number of 0 to {_LARGEST_EXACT}")
    return int(value)


def _decimal(name: str, value: str) -> int:
    if not _DECIMAL.fullmatch(value) or len(value) > len(str(LARGEST_INTEGER)) or int(value) > LARGEST_INTEGER:
        raise Refusal(400, f"{name} must be a whole number of 0 to {LARGEST_INTEGER}, without leading zeros")
    return int(value)
