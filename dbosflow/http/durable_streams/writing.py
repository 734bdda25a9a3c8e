"""Streams that belong to no workflow: made, appended to, closed and removed."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from starlette.responses import Response

from dbosflow.config import MAX_IDENTIFIER
from dbosflow.http.durable_streams import headers as names
from dbosflow.http.durable_streams.contents import content_of, cut
from dbosflow.http.durable_streams.refusals import SAFE, Refusal
from dbosflow.streams.standalone import Append, Chunk, Creation, Fork, media_type, standalone_id

if TYPE_CHECKING:
    from starlette.datastructures import Headers

    from dbosflow.streams.standalone import Appending, Standalone, StandaloneStreams

_DEFAULT_TYPE = "application/octet-stream"
_REFUSED = {
    "taken": (409, "the stream was deleted, and its path is taken as long as there are forks of it"),
    "no_source": (404, "there is no such stream to fork"),
    "source_over": (409, "the stream to fork was deleted"),
    "source_type": (409, "the content type is not that of the stream to fork"),
    "source_offset": (400, "the stream to fork does not reach as far as that offset"),
    "source_part": (400, "the message at that offset of the stream to fork is not so long"),
}


class StandaloneSource:
    """A stream that belongs to no workflow, to be read."""

    def __init__(self, streams: StandaloneStreams, found: Standalone) -> None:
        self._streams = streams
        self.found = found
        self.content_type = found.content_type

    async def read(self, offset: int) -> Chunk:
        """What there is from an offset on, up to the size of a page."""
        return await self._streams.read(self.found, offset)

    async def wait(self, last: Chunk, timeout: float) -> Chunk | None:  # noqa: ASYNC109 (the request's own)
        """What follows a chunk; ``None`` if nothing has come in time. Either way this counts as an access."""
        chunk = await self._streams.wait(self.found, last, timeout)
        await self._streams.look(self.found.path, access=True)
        return chunk

    async def tail(self) -> Chunk:
        """An empty chunk at the end of what there is."""
        return Chunk([], self.found.next, up_to_date=True, closed=self.found.closed)


def check_path(path: str) -> str:
    """``path``, if it can name a stream."""
    if not path or "\0" in path or len(path.encode(errors="surrogatepass")) > MAX_IDENTIFIER:
        raise Refusal(400, f"the path of a stream has 1 to {MAX_IDENTIFIER} bytes")
    return path


def existing(found: Standalone | None) -> Standalone:
    """The stream, if it is there."""
    if found is None or (found.is_over and not found.is_needed):
        raise Refusal(404, "there is no such stream")
    if found.is_over:
        raise Refusal(410, "the stream was deleted; only forks of it are left")
    return found


async def create(streams: StandaloneStreams, what: Creation, url: str) -> Response:
    """PUT: makes a stream, or finds that the same one is there."""
    outcome, found = await streams.create(what)
    if outcome in _REFUSED:
        status, reason = _REFUSED[outcome]
        raise Refusal(status, reason)
    assert found is not None
    if outcome == "there" and not _is_same(what, found):
        raise Refusal(409, "there is a stream of this path with other properties")
    answer = SAFE | {"Content-Type": found.content_type, names.NEXT_OFFSET: names.token(found.next)}
    if found.closed:
        answer[names.CLOSED] = "true"
    if outcome == "created":
        return Response(None, 201, headers=answer | {"Location": url})
    return Response(None, 200, headers=answer)


def creation(path: str, headers: Headers, body: bytes, source: str | None) -> Creation:
    """The stream that a PUT asks for; ``source`` is the path of the one of which it is a fork."""
    content_type, wanted = names.content_type(headers), names.fork(headers)
    ttl, moment = names.ttl(headers), names.expires_at(headers)
    fork = None
    if wanted is not None:
        fork = Fork(check_path(source or ""), wanted.offset, wanted.part, cut)
    elif content_type is None:
        content_type = _DEFAULT_TYPE
    if body and content_type is None:
        raise Refusal(400, "a fork with a body needs a Content-Type")
    content = content_of(body, content_type or _DEFAULT_TYPE, creates=True)
    return Creation(
        *(path, standalone_id(), content_type, ttl, moment, content), names.closes(headers), f"w:{uuid.uuid4()}", fork
    )


def _is_same(what: Creation, found: Standalone) -> bool:
    """Whether a creation asks for what is there."""
    if what.content_type is not None and media_type(what.content_type) != media_type(found.content_type):
        return False
    if (what.fork and what.fork.path) != found.forked_from or what.closed is not found.closed:
        return False
    inherits = what.fork is not None and what.ttl is None and what.expires_at is None
    ends_alike = what.ttl == found.ttl and (found.ttl is not None or what.expires_at == found.expires_at)
    if not inherits and not ends_alike:
        return False
    fork = what.fork
    return fork is None or (fork.offset in {None, found.fork_offset} and (fork.part or None) == found.fork_part)


async def append(streams: StandaloneStreams, path: str, headers: Headers, body: bytes) -> Response:
    """POST: appends, closes, or both, once for each place of a producer."""
    producer, closes, seq = names.producer(headers), names.closes(headers), names.stream_seq(headers)
    given = headers.get("content-type", "")
    if not body and not closes:
        raise Refusal(400, "an append needs a body")
    if body and not given:
        raise Refusal(400, "an append needs a Content-Type")
    found = existing(await streams.look(path))
    same = media_type(given) == media_type(found.content_type)
    content = content_of(body, found.content_type if same else _DEFAULT_TYPE)
    what = Append(f"w:{uuid.uuid4()}", content, media_type(given), closes, producer, seq)
    result = await streams.append(path, what)
    if not isinstance(result, tuple):
        existing(result)
        raise Refusal(404, "there is no such stream")
    return _appended(what, result[1])


def _appended(what: Append, result: Appending) -> Response:
    answer = SAFE | {names.NEXT_OFFSET: names.token(result.next)}
    producer = what.producer
    if result.closed:
        answer[names.CLOSED] = "true"
    match result.outcome:
        case "appended" | "written" | "duplicate":
            if producer is None:
                return Response(None, 204, headers=answer)
            seq = result.seq if result.outcome == "duplicate" else producer.seq
            answer |= {names.PRODUCER_EPOCH: str(producer.epoch), names.PRODUCER_SEQ: str(seq)}
            # As the reference server: 204 also where a new request only closes.
            return Response(None, 200 if result.outcome != "duplicate" and what.content.count else 204, headers=answer)
        case "stale":
            raise Refusal(
                403, "another producer of this name has begun a later epoch", {names.PRODUCER_EPOCH: str(result.epoch)}
            )
        case "closed":
            raise Refusal(409, "the stream is closed", answer)
        case "other_type":
            raise Refusal(409, "the content type is not that of the stream")
        case "not_from_zero":
            raise Refusal(400, f"the first {names.PRODUCER_SEQ} of an epoch is 0")
        case "gap":
            assert producer is not None
            expected = result.seq + 1 if result.seq is not None and result.epoch == producer.epoch else 0
            seqs = {names.EXPECTED_SEQ: str(expected), names.RECEIVED_SEQ: str(producer.seq)}
            raise Refusal(409, f"{names.PRODUCER_SEQ} {expected} is missing", seqs)
        case _:
            raise Refusal(409, f"{names.SEQ} must be greater than every earlier one")


async def delete(streams: StandaloneStreams, path: str) -> Response:
    """DELETE: removes a stream. Forks of it stay, and keep its path taken."""
    existing(await streams.look(path))
    existing(await streams.delete(path))
    return Response(None, 204, headers=SAFE)


def description(found: Standalone) -> Response:
    """HEAD: what is known of a stream."""
    answer = SAFE | {"Content-Type": found.content_type, names.NEXT_OFFSET: names.token(found.next)}
    if found.closed:
        answer[names.CLOSED] = "true"
    if found.ttl is not None:
        answer[names.TTL] = str(found.ttl)
    elif found.expires_at is not None:
        answer[names.EXPIRES_AT] = found.expires_at.isoformat().replace("+00:00", "Z")
    return Response(None, headers=answer | {"Cache-Control": "no-store"})
