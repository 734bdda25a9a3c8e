"""P5: the end of a stream is out of band, final, written with the workflow's own end, and notified at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, WorkflowStatus, close_stream_async, step, workflow, write_stream, write_stream_async
from dbosflow.errors import StreamFailedError, WorkflowFailedError
from dbosflow.types import FrameKind
from tests.behaviour.interruption import Interruption
from tests.behaviour.tables import disorder, rows

if TYPE_CHECKING:
    from tests.behaviour.conftest import StartProgram

PATIENCE = 60.0
NEVER = 600.0
"""A poll that would come too late for any test: what arrives nevertheless was notified."""


class SoldOutError(Exception):
    """The author's own."""


@step
async def worked() -> None: ...


@workflow
async def ending_well() -> str:
    await write_stream_async("a", 1)
    await write_stream_async("b", 2)
    await write_stream_async("early", 3)
    await close_stream_async("early")
    await worked()
    await write_stream_async("a", 4)
    return "done"


@workflow
def ending_badly() -> None:
    write_stream("a", 1)
    write_stream("a", 2)
    raise SoldOutError("no screws", 7)


def terminal_frames(url: str) -> dict[str, tuple[str, int, bool]]:
    """Each stream's terminal frame: its kind, its offset, and whether the workflow's end is of the same transaction."""
    query = """
        SELECT b.key, b.kind, b."offset", b.xmin = w.xmin
        FROM dbosflow.stream_block b JOIN dbosflow.workflow w ON w.id = b.workflow_id
        WHERE w.id = 'w' AND b.kind IN ('complete', 'error', 'cancelled')"""
    return {key: (kind, offset, together) for key, kind, offset, together in rows(url, query)}


def test_a_workflow_that_ends_well_completes_its_streams_in_the_same_transaction(
    database_url: str, engine: Engine
) -> None:
    """No moment exists in which it has ended and its stream has not, or the reverse; an early close is left alone."""
    assert engine.run(ending_well.options(workflow_id="w")) == "done"
    assert terminal_frames(database_url) == {
        "a": ("complete", 2, True),
        "b": ("complete", 1, True),
        "early": ("complete", 1, False),
    }
    assert disorder(database_url) == []


def test_a_workflow_that_fails_ends_its_streams_with_its_error_in_the_same_transaction(
    database_url: str, engine: Engine
) -> None:
    """The cause is the workflow's own exception, without its traceback: a workflow may leave thousands open."""
    with pytest.raises(SoldOutError):
        engine.run(ending_badly.options(workflow_id="w"))
    assert terminal_frames(database_url) == {"a": ("error", 2, True)}
    query = (
        "SELECT w.error::jsonb - 'traceback' = b.values::jsonb FROM dbosflow.workflow w, dbosflow.stream_block b "
        "WHERE b.kind = 'error'"
    )
    assert rows(database_url, query) == [(True,)]


def test_a_reader_raises_why_a_stream_ended_behind_its_last_value(engine: Engine, client: Engine) -> None:
    """A stream that ended badly never looks complete: in the process that wrote it, and in any other."""
    handle = engine.start(ending_badly)
    for one in (engine, client):
        reader = one.read_stream(handle.workflow_id, "a")
        assert [next(reader), next(reader)] == [1, 2]
        assert (reader.closed, reader.outcome) == (False, None)
        for _ in range(2):
            with pytest.raises(StreamFailedError, match=r"SoldOutError.*no screws") as caught:
                next(reader)
            assert type(caught.value.__cause__) is SoldOutError
            assert caught.value.__cause__.args == ("no screws", 7)
            assert (caught.value.workflow_id, caught.value.key) == (handle.workflow_id, "a")
        assert reader.closed
        assert reader.offset == 2
        assert reader.outcome is not None
        assert reader.outcome.kind is FrameKind.ERROR


def test_read_all_returns_what_there_was_and_leaves_the_cause(engine: Engine) -> None:
    """It raises nothing for the end; ``outcome`` says how it was."""
    handle = engine.start(ending_badly)
    reader = engine.read_stream(handle.workflow_id, "a")
    assert reader.read_all() == ([1, 2], True)
    assert reader.outcome is not None
    assert isinstance(reader.outcome.error, StreamFailedError)
    assert reader.read_all() == ([], True)
    well = engine.start(ending_well)
    complete = engine.read_stream(well.workflow_id, "a")
    assert complete.read_all() == ([1, 4], True)
    assert complete.outcome is not None
    assert (complete.outcome.kind, complete.outcome.error) == (FrameKind.COMPLETE, None)


async def test_a_channels_last_item_is_the_end(engine: Engine) -> None:
    """One item more than values: closed, with the error if there was one; then the channel is over."""

    async def items(flow: Any) -> list[Any]:
        handle = await engine.start_async(flow)
        channel = engine.read_stream_async(handle.workflow_id, "a")
        found = [item async for item in channel]
        assert [item async for item in channel] == []
        assert channel.outcome is not None
        return found

    *values, last = await items(ending_well)
    assert [(item.value, item.offset, item.closed, item.error) for item in values] == [
        (1, 0, False, None),
        (4, 1, False, None),
    ]
    assert (last.value, last.offset, last.closed, last.error) == (None, 2, True, None)
    *values, last = await items(ending_badly)
    assert [(item.value, item.closed) for item in values] == [(1, False), (2, False)]
    assert (last.value, last.offset, last.closed) == (None, 2, True)
    assert isinstance(last.error, StreamFailedError)
    assert isinstance(last.error.__cause__, SoldOutError)


def test_a_streams_error_that_cannot_be_rebuilt_is_named(engine: Engine) -> None:
    """The stand-in says what it was."""

    @workflow
    async def flow() -> None:
        class LocalError(Exception):
            pass

        await write_stream_async("k", 1)
        raise LocalError("here only")

    reader = engine.read_stream(engine.start(flow).workflow_id, "k")
    assert next(reader) == 1
    with pytest.raises(StreamFailedError, match="here only") as caught:
        next(reader)
    cause = caught.value.__cause__
    assert isinstance(cause, WorkflowFailedError)
    assert "LocalError" in cause.error_type


@pytest.mark.parametrize("flow", [ending_well, ending_badly])
def test_a_key_that_nobody_wrote_ends_with_the_workflow(engine: Engine, client: Engine, flow: Any) -> None:
    """As the workflow did: well or badly. It leaves no row."""
    workflow_id = engine.start(flow).workflow_id
    for one in (engine, client):
        reader = one.read_stream(workflow_id, "nobody")
        assert reader.read_all() == ([], True)
        assert reader.outcome is not None
        assert reader.outcome.kind is (FrameKind.COMPLETE if flow is ending_well else FrameKind.ERROR)
        assert isinstance(reader.outcome.error, StreamFailedError) == (flow is ending_badly)
    assert "nobody" not in [one.key for one in engine.streams.list(workflow_id)]


def test_a_closed_key_ends_while_the_workflow_goes_on(engine: Engine, client: Engine) -> None:
    """Also one that was never written to. Readers need not wait for the workflow."""
    interruption = Interruption()

    @workflow
    async def flow() -> str:
        await write_stream_async("k", 1)
        await close_stream_async("k")
        await close_stream_async("empty")
        await worked()
        await write_stream_async("open", 1)
        await interruption.point_async()
        return "never"

    handle = engine.start(flow)
    for one in (engine, client):
        assert one.read_stream(handle.workflow_id, "k", timeout=PATIENCE).read_all() == ([1], True)
        assert one.read_stream(handle.workflow_id, "empty", timeout=PATIENCE).read_all() == ([], True)
        assert next(one.read_stream(handle.workflow_id, "open", timeout=PATIENCE)) == 1
    assert handle.status() is WorkflowStatus.RUNNING


async def test_readers_are_notified_of_a_streams_end_and_need_no_poll(
    database_url: str, start_program: StartProgram
) -> None:
    """Clients in other processes are notified of each value, close and end, with polls switched off in all."""
    settings: dict[str, Any] = {"safety_poll": NEVER, "fast_poll": NEVER}

    @workflow
    async def flow(*, well: bool) -> str:
        await write_stream_async("a", 1)
        await write_stream_async("early", 1)
        await close_stream_async("early")
        await goes_on[-1].wait()
        if not well:
            raise SoldOutError
        return "done"

    async def ends(*, well: bool) -> None:
        goes_on.append(asyncio.Event())
        async with (
            Engine(database_url, **settings) as engine,
            Engine(database_url, executes=False, **settings) as client,
        ):
            handle = await engine.start_async(flow, well=well)
            options = {"id": handle.workflow_id, "settings": settings, "timeout": PATIENCE}
            for key in ("early", "a", "nobody"):
                readers[key] = await asyncio.to_thread(start_program, "reader", key=key, **options)
            assert await asyncio.to_thread(readers["early"].receive) == [0, 1]
            assert await asyncio.to_thread(readers["early"].receive) == {"end": 1, "closed": True, "error": None}
            assert await asyncio.to_thread(readers["a"].receive) == [0, 1]
            waiting = asyncio.create_task(client.handle(handle.workflow_id).result_async(PATIENCE))
            await asyncio.sleep(0)
            goes_on[-1].set()
            ends = [await asyncio.to_thread(readers[key].receive) for key in ("a", "nobody")]
            assert [(end["end"], end["closed"], bool(end["error"])) for end in ends] == [
                (1, True, not well),
                (0, True, not well),
            ]
            if well:
                assert await waiting == "done"
            else:
                with pytest.raises(SoldOutError):
                    await waiting

    goes_on: list[asyncio.Event] = []
    readers: dict[str, Any] = {}
    await ends(well=True)
    await ends(well=False)
