"""Streams with a type: checked where they are written, and what a writer can say besides values."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from dbosflow import Engine, Stream, step, workflow
from dbosflow.errors import (
    ConfigurationError,
    NotInWorkflowError,
    SerializationError,
    StreamClosedError,
    StreamFailedError,
)
from dbosflow.types import FrameKind
from tests.behaviour.interruption import Interruption
from tests.behaviour.tables import disorder, records, rows
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATIENCE = 60.0


class Token(BaseModel):
    """A chunk."""

    text: str


class Usage(BaseModel):
    """A final payload."""

    tokens: int


tokens = Stream[Token, Usage]("tokens")
plain = Stream[Any, Any]("plain")


@workflow
async def typed(words: list[str]) -> int:
    async with tokens.writer() as writer:
        await writer.write_many_async([Token(text=word) for word in words[:1]])
        await writer.write_many_async(one_by_one(words[1:]))
        await writer.close_async(Usage(tokens=writer.position))
    return writer.position


async def one_by_one(words: list[str]) -> AsyncIterator[Token]:
    for word in words:
        yield Token(text=word)


@step
def writing_in_a_step(words: list[str]) -> None:
    with tokens.writer() as writer:
        writer.write_many(Token(text=word) for word in words)
        writer.close(Usage(tokens=writer.position))


@workflow
def typed_on_thread(words: list[str]) -> int:
    writing_in_a_step(words)
    return len(words)


@pytest.mark.parametrize("flow", [typed, typed_on_thread], ids=["body", "step"])
def test_both_ends_know_what_a_stream_holds(engine: Engine, database_url: str, flow: Any) -> None:
    """Values and the final payload come back as they were written, at once and from a late reader."""
    assert engine.start(flow.options(workflow_id="w"), ["a", "b", "c"]).result(PATIENCE) == 3
    reader = engine.read(tokens, "w")
    assert list(reader) == [Token(text=text) for text in "abc"]
    assert reader.outcome is not None
    assert reader.outcome.final == Usage(tokens=3)
    assert engine.read(tokens, "w", start=-1).read_all() == ([Token(text="c")], True)

    async def main() -> None:
        channel = engine.read_async(tokens, "w", view="committed")
        assert [item.value async for item in channel] == [*(Token(text=text) for text in "abc"), None]
        assert channel.outcome is not None
        assert channel.outcome.final == Usage(tokens=3)

    asyncio.run(main())
    assert disorder(database_url) == []


@workflow
async def writing_wrongly(where: str) -> None:
    wrong: Any = {"text": 1, "extra": object()}
    writer = tokens.writer()
    if where == "value":
        await writer.write_async(wrong)
    else:
        await writer.close_async(wrong)


@pytest.mark.parametrize(("where", "said"), [("value", "a value of stream 'tokens'"), ("final", "the final payload")])
def test_a_value_that_does_not_fit_a_typed_stream_is_refused_at_the_writer(
    engine: Engine, where: str, said: str
) -> None:
    """With the stream's name; readers never see it."""
    handle = engine.start(writing_wrongly, where)
    with pytest.raises(SerializationError, match=said):
        handle.result(PATIENCE)
    assert engine.read(tokens, handle.workflow_id).read_all() == ([], True)


class TornError(Exception):
    """What a writer gives as a reason."""


@workflow
async def failing_stream(how: str) -> str:
    writer = plain.writer()
    await writer.write_async(1)
    if how == "fail":
        await writer.fail_async(TornError("torn"))
        with pytest.raises(StreamClosedError):
            await writer.write_async(2)
    else:
        with pytest.raises(TornError):
            async with writer:
                raise TornError("torn")
    return "went on"


@pytest.mark.parametrize("how", ["fail", "with"])
def test_a_stream_that_is_failed_by_its_writer_fails_nothing_else(engine: Engine, how: str) -> None:
    """Readers get its reason; the workflow goes on."""
    handle = engine.start(failing_stream, how)
    assert handle.result(PATIENCE) == "went on"
    reader = engine.read(plain, handle.workflow_id)
    assert next(reader) == 1
    with pytest.raises(StreamFailedError, match="torn") as raised:
        next(reader)
    assert isinstance(raised.value.__cause__, TornError)
    assert reader.outcome is not None
    assert reader.outcome.kind is FrameKind.ERROR


@step(max_attempts=2, interval=0)
def torn_once() -> None:
    with plain.writer() as writer:
        writer.write(1)
        if not torn:
            torn.append(1)
            raise TornError


torn: list[int] = []


@workflow
def tears() -> None:
    torn_once()


def test_an_exception_in_a_step_leaves_the_stream_for_the_next_attempt(engine: Engine) -> None:
    """Which closes it."""
    torn.clear()
    handle = engine.start(tears)
    handle.result(PATIENCE)
    assert engine.read(plain, handle.workflow_id).read_all() == ([1], True)
    assert engine.read(plain, handle.workflow_id, view="raw").read_all() == ([1, 1], True)


@workflow
async def flushing(path: str) -> list[int]:
    writer = plain.writer()
    for number in range(3):
        await writer.write_async(number)
    assert writer.position == 3
    await writer.flush_async()
    return [count for (count,) in rows(path, "SELECT sum(count)::int FROM dbosflow.stream_block WHERE key = 'plain'")]


@workflow
def flushing_on_thread(path: str) -> list[int]:
    writer = plain.writer()
    writer.write_many(range(3))
    writer.flush()
    return [count for (count,) in rows(path, "SELECT sum(count)::int FROM dbosflow.stream_block WHERE key = 'plain'")]


@workflow
async def flushing_in_branches(path: str) -> list[int]:
    first, second = await asyncio.gather(flushing_branch(path), flushing_branch(path))
    return first + second


async def flushing_branch(path: str) -> list[int]:
    writer = plain.writer()
    await writer.write_async(1)
    await writer.flush_async()
    found = rows(path, "SELECT sum(count)::int FROM dbosflow.stream_block WHERE key = 'plain' AND producer <> ''")
    return [found[0][0]]


@pytest.mark.parametrize("flow", [flushing, flushing_on_thread])
def test_a_flush_waits_until_all_is_durable(engine: Engine, database_url: str, flow: Any) -> None:
    """Without a record of its own."""
    handle = engine.start(flow, database_url)
    assert handle.result(PATIENCE) == [3]
    assert records(database_url, handle.workflow_id) == []


def test_a_flush_among_branches_is_an_outcome_like_any_other(engine: Engine, database_url: str) -> None:
    """It has a record, so that a replay goes on in the same order."""
    handle = engine.start(flushing_in_branches, database_url)
    assert all(count >= 1 for count in handle.result(PATIENCE))
    assert [kind for _, kind in records(database_url, handle.workflow_id)] == ["flush", "flush"]


interruption: list[Interruption] = []


@workflow
async def flushes_and_is_interrupted() -> list[int]:
    async def branch(number: int) -> int:
        writer = plain.writer()
        await writer.write_async(number)
        await writer.flush_async()
        return number

    done = await asyncio.gather(branch(1), branch(2))
    await interruption[-1].point_async()
    assert await plain.writer().emitted_async() == []
    return list(done)


def test_flushes_are_replayed(database_url: str) -> None:
    """And nothing is written twice."""
    interruption.append(Interruption())
    target = flushes_and_is_interrupted.options(workflow_id="w")
    assert interruption[-1].two_passes(database_url, target) == [1, 2]
    with Engine(database_url, executes=False) as engine:
        assert sorted(engine.read(plain, "w").read_all()[0]) == [1, 2]


@step
async def watching() -> None:
    writer = plain.writer()
    on_cancel = asyncio.Event()
    writer.on_cancel(on_cancel.set)
    assert writer.writable
    assert not writer.cancelled
    await writer.write_async("watching")
    try:
        await on_cancel.wait()
    finally:
        seen.append((writer.cancelled, writer.writable))


seen: list[tuple[bool, bool]] = []


@workflow
async def watched() -> None:
    await watching()


def test_a_writer_hears_of_a_cancellation(engine: Engine) -> None:
    """By a call and by a flag."""
    seen.clear()
    handle = engine.start(watched)
    assert next(engine.read(plain, handle.workflow_id)) == "watching"
    handle.cancel()
    eventually(lambda: seen == [(True, False)])
    eventually(lambda: handle.status().ended)


def test_writers_outside_an_engine_check_their_values_and_drop_them() -> None:
    """A unit test of a step needs nothing; a writer without anything around it is an error."""
    writing_in_a_step(["a"])
    with pytest.raises(NotInWorkflowError, match="needs a workflow or step"):
        plain.writer()
    with pytest.raises(ConfigurationError, match="stream key"):
        Stream[int, None]("")

    @step
    def wrong() -> None:
        tokens.writer().write("no token")  # type: ignore[arg-type]

    with pytest.raises(SerializationError):
        wrong()
