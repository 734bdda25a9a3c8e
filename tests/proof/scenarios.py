"""What a crash sweep runs: for each kind of workflow a client that would do the same again after a crash.

All is deterministic in what counts: results, records, and what streams hold in the end.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import psycopg

from dbosflow import Engine, WorkflowStatus
from dbosflow._runtime.engine import starts
from dbosflow.errors import WaitTimeoutError, WorkflowNotFoundError
from tests.proof.programs.compensating import swept_undone, swept_undone_on_thread
from tests.proof.programs.plain import (
    swept_branches,
    swept_child,
    swept_drawing,
    swept_failing,
    swept_family,
    swept_fan_out,
    swept_nothing,
    swept_nothing_on_thread,
    swept_opening,
    swept_openings,
    swept_openings_on_thread,
    swept_relaxed,
    swept_retries,
    swept_sequence,
    swept_sequence_on_thread,
    swept_whole,
    swept_whole_children,
    swept_whole_children_on_thread,
    swept_writing,
)
from tests.proof.programs.steps import FOR_EVER
from tests.proof.programs.transacting import swept_transactions, swept_transactions_on_thread
from tests.proof.programs.waiting import (
    swept_answered,
    swept_continuing,
    swept_continuing_on_thread,
    swept_dozing,
    swept_listening,
    swept_reading,
    swept_receiving,
    swept_sending,
    swept_sleeping,
    swept_waiting,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dbosflow.workflows import WorkflowSpec


QUEUE = "proof"


class Client:
    """The outside of one run: starts workflows, and waits for their results. Does the same again after a crash."""

    def __init__(self, engine: Engine, run: str, note: Callable[[str, Any], None]) -> None:
        self.engine = engine
        self.run = run
        self._note = note

    def id(self, name: str) -> str:
        """The id of one of its workflows."""
        return f"{self.run}.{name}"

    async def start(self, name: str, target: WorkflowSpec[..., Any], *args: Any, **kwargs: Any) -> str:
        """Starts one, or finds it started; its id."""
        await self.engine.start_async(target, *args, **kwargs)
        self._note("acknowledged", self.id(name))
        return self.id(name)

    async def run_one(self, name: str, target: Any, *args: Any, queue: str | None = None) -> None:
        """Starts one and waits for its end, whatever that is."""
        options: dict[str, Any] = {"workflow_id": self.id(name)} | ({"queue": queue} if queue else {})
        await self.ended(await self.start(name, target.options(**options), *args))

    async def ended(self, workflow_id: str) -> None:
        """Waits for the end of one, whatever that is."""
        handle = self.engine.handle(workflow_id)
        try:
            result = await handle.result_async(timeout=60)
        except WaitTimeoutError:
            raise
        except Exception:  # noqa: BLE001 (whatever it ended with)
            info = await handle.info_async()
            message = getattr(info.error, "reason", None if info.error is None else str(info.error))
            self._note("ends", [workflow_id, info.status, message])
        else:
            self._note("ends", [workflow_id, "succeeded", result])

    async def run_new(self, name: str, target: Any, *args: Any, once: bool = False) -> None:
        """Starts one under an id that the engine makes, which nobody knows before its end; this is what makes them.

        ``once``: not if it is there. An engine makes no id twice, so no step begins under one that is taken.
        """
        if once:
            with suppress(WorkflowNotFoundError):
                await self.engine.handle(self.id(name)).info_async()
                await self.ended(self.id(name))
                return
        made = iter([self.id(name)])
        with patch.object(starts, "new_id", lambda: next(made)):
            result = await self.engine.run_async(target, *args)
        self._note("acknowledged", self.id(name))
        self._note("ends", [self.id(name), "succeeded", result])

    async def sees(self, workflow_id: str, key: str) -> None:
        """Waits for the first value of a stream."""
        async with self.engine.read_stream_async(workflow_id, key, wait_for=60) as channel:
            async for _ in channel:
                return


def _alone(name: str, target: Any, *args: Any) -> Callable[[Client], Awaitable[None]]:
    return lambda client: client.run_one(name, target, *args)


async def _new(client: Client) -> None:
    """Bodies that begin before their workflows have rows: some end so, the others wait or make branches."""
    await client.run_new("nothing", swept_nothing, 7)
    await client.run_new("thread", swept_nothing_on_thread, 8)
    await client.run_new("threads", swept_sequence_on_thread)
    await client.run_new("written", swept_opening, 2)
    await client.run_new("whole", swept_whole, once=True)
    await client.run_new("writing", swept_writing)
    await client.run_new("branches", swept_branches)
    await client.run_new("relaxed", swept_relaxed, once=True)


async def _queued(client: Client) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(client.run_one(f"queued{number}", swept_child, number, queue=QUEUE))


async def _inputs(client: Client) -> None:
    listening = await client.start("listening", swept_listening.options(workflow_id=client.id("listening")))
    reading = await client.start("reading", swept_reading.options(workflow_id=client.id("reading")))
    for number in range(3):
        await client.engine.write_stream_async(
            listening, "questions", f"question {number}", idempotency_key=str(number)
        )
        await client.engine.write_stream_async(reading, "chat", [number], idempotency_key=str(number))
    await client.engine.close_stream_async(listening, "questions")
    await client.engine.close_stream_async(reading, "chat")
    await client.ended(listening)
    await client.ended(reading)


async def _messages(client: Client) -> None:
    receiving = await client.start("receiving", swept_receiving.options(workflow_id=client.id("receiving")))
    await client.start("sending", swept_sending.options(workflow_id=client.id("sending")), receiving)
    for number in range(3):
        await client.engine.send_async(receiving, number, "outside", idempotency_key=str(number))
    await client.ended(receiving)
    await client.ended(client.id("sending"))
    state = await client.engine.get_event_async(receiving, "state", committed=True)
    assert state == "done"


async def _tokens(client: Client) -> None:
    workflow_id = await client.start("answered", swept_answered.options(workflow_id=client.id("answered")))
    first, second = await client.engine.get_event_async(workflow_id, "tokens", type=list[str])
    await client.engine.resolve_async(first, {"answer": 1}, idempotency_key="first")
    await client.engine.reject_async(second, "no", idempotency_key="second")
    for number in range(2):
        ask = client.engine.ask_async(workflow_id, number, "double", type=int, idempotency_key=str(number))
        assert await ask == 7 * number
    await client.ended(workflow_id)


async def _waiting(client: Client) -> None:
    """Brings each thing when the workflow waits for it in the tables, or has got it before a crash."""
    waiting = await client.start("waiting", swept_waiting.options(workflow_id=client.id("waiting")))
    await _until_away(client, waiting)
    await client.engine.write_stream_async(waiting, "words", "word", idempotency_key="0")
    await client.sees(waiting, "values")
    await _until_away(client, waiting)
    await client.engine.send_async(waiting, "now", "go", idempotency_key="0")
    await client.ended(waiting)
    await client.ended(f"{waiting}/child#0+swept_sleeping#0")


async def _until_away(client: Client, workflow_id: str) -> None:
    handle, deadline = client.engine.handle(workflow_id), time.monotonic() + 60
    while not ((status := await handle.status_async()) is WorkflowStatus.WAITING or status.ended):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def _cancelled(client: Client) -> None:
    parent = await client.start("dozing", swept_dozing.options(workflow_id=client.id("dozing")), parent=True)
    child = f"{parent}/swept_dozing#0"
    await client.sees(child, "open")
    await until_asleep(client, parent, child)
    await client.engine.handle(parent).cancel_async()
    await client.ended(parent)
    await client.ended(child)


async def _undone(client: Client, end: Callable[[Client, str], Awaitable[None]]) -> None:
    for name, flow in (("undone", swept_undone), ("thread", swept_undone_on_thread)):
        target = flow.options(workflow_id=client.id(name), timeout=FOR_EVER)
        workflow_id = await client.start(name, target, "waits")
        await until_asleep(client, workflow_id)
        await end(client, workflow_id)
        await client.ended(workflow_id)


async def _cancel(client: Client, workflow_id: str) -> None:
    await client.engine.handle(workflow_id).cancel_async(reason="swept")


async def _expire(client: Client, workflow_id: str) -> None:
    core: Any = client.engine._core
    async with await psycopg.AsyncConnection.connect(core._url, autocommit=True) as connection:
        await connection.execute("UPDATE dbosflow.workflow SET deadline_at = now() WHERE id = %s", (workflow_id,))
    core.executor._alarm.wake()


async def until_asleep(client: Client, *workflow_ids: str) -> None:
    """Until they wait for nothing but their cancellation: what they have written before does not depend on it then."""
    deadline = time.monotonic() + 60
    for workflow_id in workflow_ids:
        while not any("sleep" in one.kind for one in await client.engine.list_steps_async(workflow_id)):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)


async def _continuing(client: Client) -> None:
    workflow_id = await client.start("continuing", swept_continuing.options(workflow_id=client.id("continuing")))
    for number in range(5):
        await client.engine.write_stream_async(workflow_id, "words", f"word {number}", idempotency_key=str(number))
        await client.engine.send_async(workflow_id, number, "go", idempotency_key=str(number))
    await client.engine.close_stream_async(workflow_id, "words")
    await client.ended(workflow_id)


SCENARIOS: dict[str, Callable[[Client], Awaitable[None]]] = {
    "sequence": _alone("sequence", swept_sequence),
    "threads": _alone("threads", swept_sequence_on_thread),
    "branches": _alone("branches", swept_branches),
    "relaxed": _alone("relaxed", swept_relaxed),
    "writing": _alone("writing", swept_writing),
    "retries": _alone("retries", swept_retries),
    "drawing": _alone("drawing", swept_drawing),
    "family": _alone("family", swept_family),
    "openings": _alone("openings", swept_openings),
    "openings-threads": _alone("openings", swept_openings_on_thread),
    "whole": _alone("whole", swept_whole_children),
    "whole-threads": _alone("whole", swept_whole_children_on_thread),
    "fan out": _alone("fan_out", swept_fan_out),
    "failing": _alone("failing", swept_failing, 5),
    "sleeping": _alone("sleeping", swept_sleeping),
    "new": _new,
    "queued": _queued,
    "inputs": _inputs,
    "messages": _messages,
    "tokens": _tokens,
    "cancelled": _cancelled,
    "continuing": _continuing,
    "continuing-threads": _alone("continuing", swept_continuing_on_thread),
    "transactions": _alone("transactions", swept_transactions),
    "transactions-threads": _alone("transactions", swept_transactions_on_thread),
    "waiting": _waiting,
    "undone": _alone("undone", swept_undone, "fails"),
    "undone-threads": _alone("undone", swept_undone_on_thread, "fails"),
    "undone-cancelled": lambda client: _undone(client, _cancel),
    "undone-late": lambda client: _undone(client, _expire),
}


SUSPENDING = {"waiting"}
"""The scenarios in which whatever waits leaves memory."""
