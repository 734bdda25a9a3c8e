"""LISTEN only lowers latency: it heals, and what it misses is found all the same."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg

from dbosflow import Engine, workflow, write_stream_async
from dbosflow._runtime.streams.hub import Hub
from dbosflow._runtime.wakeups import listener as listener_module
from dbosflow._runtime.wakeups.listener import Listener, SafetyPoll
from dbosflow._runtime.wakeups.notifier import Notifier
from dbosflow._runtime.wakeups.topics import Wakeups
from dbosflow._store.connect import connect_async
from dbosflow._store.notify import DEATH_TOPIC, notify, part_of, queue_topic, stream_topic, topics_of, unlisten
from dbosflow._store.notify import listen as listen_to
from dbosflow.config import Settings
from tests.runtime.sessions import LISTENING, cut, sessions
from tests.support import eventually, eventually_async

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pytest

    from dbosflow._store.connection import Connection
    from dbosflow._store.stream import Page

go_on = asyncio.Event()


@workflow
async def writes() -> None:
    """One value, and another when the gate opens."""
    await write_stream_async("out", 0)
    await go_on.wait()
    await write_stream_async("out", 1)


@workflow
async def writes_nothing() -> None:
    """It ends in its opening."""


async def test_a_listener_heals_and_wakes_everybody_once_it_listens_again(database_url: str) -> None:
    """What was committed in between was notified to nobody."""
    wakeups, woken = Wakeups(), asyncio.Event()
    wakeups.subscribe("some topic", woken.set)
    listener = Listener(database_url, Settings(), wakeups, lambda pid: False)
    listener.open()
    async with asyncio.timeout(60):
        for _ in range(3):
            await woken.wait()
            assert listener.healthy.is_set()
            woken.clear()
            await asyncio.to_thread(cut, database_url, LISTENING)
        await woken.wait()
    await listener.close()
    assert not listener.healthy.is_set()


async def test_a_process_hears_of_what_it_waits_for_and_not_of_all_that_others_do(database_url: str) -> None:
    """Many that are idle cost those at work nothing but a signal: their own loops sleep on."""
    wakeups, received, busy = Wakeups(), asyncio.Queue[str](), stream_topic("busy", "out")
    wakeups.subscribe(queue_topic("mine"), lambda: received.put_nowait("mine"))
    listener = Listener(database_url, Settings(), wakeups, lambda pid: False)
    listener.open()
    async with await connect_async(database_url) as connection, asyncio.timeout(60):
        assert await received.get() == "mine"  # as each time that a connection begins to listen
        topics: list[str] = []
        assert listener._connection
        listener._connection.add_notify_handler(lambda one: topics.extend(topics_of(one.payload)))
        await notify(connection, "dbosflow", [busy])
        await notify(connection, "dbosflow", [queue_topic("mine")])
        assert await received.get() == "mine"
        assert topics == [queue_topic("mine")]
        unsubscribe = wakeups.subscribe(busy, lambda: received.put_nowait("busy"))
        assert await received.get() == "busy"  # what was committed before it was listened to is read now
        await notify(connection, "dbosflow", [busy])
        assert await received.get() == "busy"
        unsubscribe()
    await listener.close()


async def test_a_subscriber_that_comes_back_to_a_channel_that_is_just_left_hears_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part is left after a while only, and one that is wanted again meanwhile is listened to again."""
    topic = stream_topic("w", "out")
    coming_back: list[Callable[[], None]] = []

    async def slowly(connection: Connection, schema: str, parts: Iterable[str]) -> None:
        assert list(parts) == [part_of(topic)]
        coming_back.pop()()
        await unlisten(connection, schema, parts)

    monkeypatch.setattr(listener_module, "_KEEPALIVE", 0.2)
    monkeypatch.setattr(listener_module, "unlisten", slowly)

    wakeups, received = Wakeups(), asyncio.Queue[str]()
    unsubscribe = wakeups.subscribe(topic, lambda: received.put_nowait("before"))

    def come_back() -> None:
        wakeups.subscribe(topic, lambda: received.put_nowait("again"))

    coming_back.append(come_back)
    listener = Listener(database_url, Settings(), wakeups, lambda pid: False)
    listener.open()
    async with await connect_async(database_url) as connection, asyncio.timeout(60):
        assert await received.get() == "before"
        unsubscribe()
        assert await received.get() == "again"  # it is listened to again, so it is read once
        await notify(connection, "dbosflow", [topic])
        assert await received.get() == "again"
    await listener.close()
    assert not coming_back


async def test_a_reader_elsewhere_goes_on_after_its_listener_was_cut(database_url: str) -> None:
    """With no safety poll to help: the reconnect re-reads, and later hints arrive again."""
    global go_on  # noqa: PLW0603 (a workflow has no other place to look)
    go_on = asyncio.Event()
    async with Engine(database_url) as engine, Engine(database_url, executes=False, safety_poll=1000) as client:
        handle = await engine.start_async(writes)
        reader = client.read_stream_async(handle.workflow_id, "out", wait_for=10)
        assert (await anext(reader)).value == 0
        for pid, _ in await asyncio.to_thread(sessions, database_url, LISTENING):
            await asyncio.to_thread(cut, database_url, f"pid = {pid}")
        go_on.set()
        async with asyncio.timeout(60):
            assert [item.value async for item in reader] == [1, None]
            await handle.result_async()


async def test_the_safety_poll_finds_what_no_hint_told_of(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All notifications are lost; values and ends arrive, a poll later."""
    lost: list[str] = []
    monkeypatch.setattr(Notifier, "send", lambda _, topics, **__: lost.extend(topics))

    global go_on  # noqa: PLW0603
    go_on = asyncio.Event()
    async with Engine(database_url) as engine, Engine(database_url, executes=False, safety_poll=0.2) as client:
        handle = await engine.start_async(writes)
        reader = client.read_stream_async(handle.workflow_id, "out", wait_for=10)
        async with asyncio.timeout(60):
            assert (await anext(reader)).value == 0
            waiting = asyncio.create_task(client.handle(handle.workflow_id).result_async())
            go_on.set()
            assert [item.value async for item in reader] == [1, None]
            await waiting
    assert lost


async def test_a_reader_that_has_waited_in_vain_for_a_hint_looks_once_more(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its workflow began meanwhile, and its wait is over before a poll would have found it."""
    async with asyncio.timeout(60), Engine(database_url) as engine, Engine(database_url, executes=False) as client:
        starting: list[asyncio.Task[Any]] = []

        async def read(hub: Hub, workflow_id: str, key: str, offset: int, known: Any, **options: Any) -> Page:
            if known is None:
                starting.append(asyncio.create_task(engine.start_async(writes_nothing.options(workflow_id="later"))))
                await asyncio.Event().wait()
            await asyncio.gather(*starting)
            return await really_read(hub, workflow_id, key, offset, known, **options)

        really_read = Hub.read
        monkeypatch.setattr(Hub, "read", read)
        assert [item.closed async for item in client.read_stream_async("later", "out", wait_for=0.01)] == [True]


async def test_a_death_has_everybody_read_what_its_last_hints_did_not_tell(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that dies between a commit and its NOTIFY: the announcement of its death stands for all of them."""

    async def nothing(_: SafetyPoll) -> bool:
        return False

    monkeypatch.setattr(Notifier, "send", lambda *_, **__: None)
    monkeypatch.setattr(SafetyPoll, "work_once", nothing)

    global go_on  # noqa: PLW0603
    go_on = asyncio.Event()
    async with Engine(database_url) as engine, Engine(database_url, executes=False) as client:
        # A session that begins to listen wakes all subscribers, too.
        await asyncio.to_thread(eventually, lambda: len(sessions(database_url, LISTENING)) == 2)
        handle = await engine.start_async(writes)
        reader = client.read_stream_async(handle.workflow_id, "out", wait_for=10)
        async with asyncio.timeout(60):
            await anext(engine.read_stream_async(handle.workflow_id, "out"))  # it is there: no hint will come
            assert (await anext(reader)).value == 0
            reading = asyncio.create_task(anext(reader))
            tails = client._core.services.hub._tails
            await eventually_async(lambda: any(one.asks and one.end == 1 and not one.news for one in tails.values()))
            go_on.set()
            await handle.result_async()
        assert not reading.done()
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            await notify(connection, "dbosflow", [DEATH_TOPIC])
        async with asyncio.timeout(60):
            assert (await reading).value == 1


async def test_polls_are_fast_while_listening_does_not_work_and_slow_while_it_does(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a transaction pooler, for one, polling is all there is."""
    working = False

    async def listen(*args: Any) -> None:
        if not working:
            raise OSError("no LISTEN here")
        await listen_to(*args)

    monkeypatch.setattr(listener_module, "listen", listen)
    settings, wakeups, woken = Settings(fast_poll=0.01, safety_poll=1000.0), Wakeups(), 0

    def wake() -> None:
        nonlocal woken
        woken += 1

    wakeups.subscribe("some topic", wake)
    listener = Listener(database_url, settings, wakeups, lambda pid: False)
    poll = SafetyPoll(settings, wakeups, listener)
    listener.open()
    poll.open()
    await eventually_async(lambda: woken > 20)
    working = True
    async with asyncio.timeout(60):
        await listener.healthy.wait()
    await eventually_async(lambda: poll._interval == settings.safety_poll)
    before = woken
    assert not await _more(lambda: woken > before + 1)
    working = False
    await asyncio.to_thread(cut, database_url, LISTENING)
    await eventually_async(lambda: woken > before + 20)
    await poll.close()
    await listener.close()


async def _more(probe: Callable[[], bool]) -> bool:
    """Whether it becomes true within some twenty fast polls."""
    for _ in range(20):
        await asyncio.sleep(0.01)
    return probe()


async def test_a_process_does_not_hear_its_own_notifications(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was woken directly, before: a hint about its own commit would only cost a query."""
    received: list[str] = []

    def note(payload: str) -> list[str]:
        received.append(payload)
        return []

    monkeypatch.setattr(listener_module, "topics_of", note)

    global go_on  # noqa: PLW0603
    go_on = asyncio.Event()
    go_on.set()
    async with Engine(database_url) as engine:
        await engine.run_async(writes)
        await eventually_async(lambda: not engine._core.services.notifier._topics)
    assert received == []
