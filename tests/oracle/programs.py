"""The workflows that carry plans out, with what authors of workflows are given: one of each colour."""

from __future__ import annotations

import asyncio
import random
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import psycopg

from dbosflow import (
    Stream,
    as_completed_async,
    branch,
    compensate,
    continue_as_new,
    current,
    durable,
    for_each,
    for_each_async,
    map_workflow_async,
    patched,
    read_input,
    read_input_async,
    read_stream,
    read_stream_async,
    recv,
    recv_async,
    send,
    send_async,
    set_event,
    set_event_async,
    sleep,
    sleep_async,
    step,
    timeout,
    transaction,
    wait,
    wait_first_async,
    workflow,
    write_stream,
    write_stream_async,
)
from dbosflow.errors import MessageTimeoutError, StreamClosedError, WorkflowCancelledError
from tests.oracle.answers import ENGINE, AsyncAnswers, SyncAnswers
from tests.oracle.expected import INPUT, doubled, written
from tests.oracle.plans import AGAIN

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

NEVER = 60.0
"""Seconds that nothing here takes."""

_chance = random.Random(0)
"""How long steps take, and which attempts fail: that comes out otherwise each time."""
_whose: ContextVar[str] = ContextVar("whose", default="the body's")


@step
def double(number: int) -> int:
    return doubled(number)


@step
async def double_async(number: int) -> int:
    await asyncio.sleep(_chance.choice([0, 0, 0.001, 0.003]))
    return doubled(number)


@step(relaxed=True)
def count_up(number: int) -> int:
    return number + 1


@step(relaxed=True)
async def count_up_async(number: int) -> int:
    await asyncio.sleep(_chance.choice([0, 0, 0, 0.001]))
    return number + 1


@step(max_attempts=20, interval=0.001)
def flaky(number: int) -> int:
    if _chance.random() < 0.4:
        raise OSError
    return doubled(number)


@step
def repeat(drawn: str) -> str:
    return drawn


def draw() -> str:
    """Draws of each kind."""
    return f"{durable.now()} {durable.uuid4()} {durable.random()} {durable.Random().random()}"


@step
def fail(number: int) -> None:
    raise ValueError(number)


@step
def set_scope() -> None:
    _whose.set("the step's")


@step(max_attempts=20, interval=0.001)
def write_in_step(key: str, number: int) -> int:
    for value in written(number):
        write_stream(key, value)
        if _chance.random() < 0.1:
            raise OSError
    return number


def may_conflict() -> None:
    """As Postgres ends a transaction for another one."""
    if _chance.random() < 0.2:
        raise psycopg.errors.SerializationFailure


INSERT = "INSERT INTO transacted VALUES (%s, %s)"
"""A row of the user's for each transaction."""


@transaction
def transact(connection: psycopg.Connection, key: str, number: int) -> int:
    connection.execute(INSERT, (current().workflow_id, number))
    for value in written(number):
        write_stream(key, value)
    may_conflict()
    return doubled(number)


@transaction(isolation="serializable", max_conflicts=1000)
async def transact_async(connection: psycopg.AsyncConnection, key: str, number: int) -> int:
    await connection.execute(INSERT, (current().workflow_id, number))
    for value in written(number):
        await write_stream_async(key, value)
    may_conflict()
    return doubled(number)


@step
def write_inputs(number: int) -> None:
    for value in written(number):
        ENGINE[0].write_stream(current().workflow_id, INPUT, value, idempotency_key=str(value))


@step(max_attempts=20, interval=0.001)
def undo(number: int) -> None:
    write_stream("undone", number)
    if _chance.random() < 0.3:
        raise OSError


@workflow(compensates=True)
def undone(number: int) -> None:
    """A sync workflow that does something and registers how to undo it, then fails or waits to be cancelled."""
    for value in written(number):
        double(value)
        compensate(undo, value)
        write_stream("done", value)
    if number % 2:
        raise LookupError(number)
    sleep(NEVER)


@workflow(compensates=True)
async def undone_async(number: int) -> None:
    """The same, with a branch for each that is done."""

    async def do(value: int) -> None:
        await double_async(value)

    for value in written(number):
        await asyncio.gather(do(value), do(value))
        compensate(undo, value)
        await write_stream_async("done", value)
    if number % 2:
        raise LookupError(number)
    await asyncio.gather(sleep_async(NEVER), sleep_async(NEVER))


@workflow(inputs=[INPUT])
def carry_out(plan: list[Any], fails: int | None = None, done: tuple[Any, ...] = ()) -> list[Any]:
    """A sync workflow that carries a plan out: what an earlier iteration has done of it is ``done``."""
    body, results = _Sync(has_read=_has_read(plan, done)), list(done)
    for place, line in enumerate(plan[len(done) :], len(done)):
        if line[0] == AGAIN:
            continue_as_new(plan, fails, (*results, AGAIN))
        results.append(body.carry_out(line, place))
    if fails is not None:
        raise LookupError(fails)
    return results


@workflow(inputs=[INPUT])
async def carry_out_async(plan: list[Any], fails: int | None = None, done: tuple[Any, ...] = ()) -> list[Any]:
    """An async one."""
    body, results = _Async("", has_read=_has_read(plan, done)), list(done)
    for place, line in enumerate(plan[len(done) :], len(done)):
        if line[0] == AGAIN:
            continue_as_new(plan, fails, (*results, AGAIN))
        results.append(await body.carry_out(line, place))
    if fails is not None:
        raise LookupError(fails)
    return results


def _has_read(plan: list[Any], done: tuple[Any, ...]) -> bool:
    """Whether an earlier iteration has read the input."""
    return any(kind == "inputs" for kind, *_ in plan[: len(done)])


def how_it_ended(error: Exception) -> str:
    """What a line says of a child that was undone."""
    if isinstance(error, WorkflowCancelledError):
        return f"cancelled: {error.reason}"
    return f"LookupError: {error}"


class _Sync(SyncAnswers):
    """The body of a sync workflow. Each method carries out a kind of line."""

    def __init__(self, *, has_read: bool) -> None:
        self._stream: Stream[int, Any] = Stream("own")
        self._has_read = has_read

    def carry_out(self, line: list[Any], place: int) -> Any:
        """What a line comes to."""
        kind, number, *more = line
        return getattr(self, kind)(number, *more, place=place)

    def step(self, number: int, **_: Any) -> int:
        return double(number)

    def relaxed(self, number: int, **_: Any) -> int:
        found = number
        for _one in range(number):
            found = count_up(found)
        return found

    def flaky(self, number: int, **_: Any) -> int:
        return flaky(number)

    def transaction(self, number: int, *, place: int) -> int:
        return transact(f"transaction.{place}", number)

    def failing(self, number: int, **_: Any) -> str:
        try:
            fail(number)
        except ValueError as error:
            return f"ValueError: {error}"
        return "no error"

    def sleep(self, number: int, **_: Any) -> str:
        sleep(0.001 * number)
        return "slept"

    def late(self, number: int, **_: Any) -> str:
        sleep(0.001 * number)  # nothing ends what a thread does
        return "too late"

    def scoped(self, _number: int, **_: Any) -> str:
        set_scope()
        return _whose.get()

    def changed(self, number: int, **_: Any) -> int:
        if patched("number"):
            double(number)
        return double(number)

    def draw(self, number: int, **_: Any) -> str:
        drawn = draw()
        if number % 2 == 0:
            return "drawn"
        return "the same" if repeat(drawn) == drawn else "another"

    def mail(self, number: int, *, place: int) -> list[int]:
        for value in written(number):
            send(current().workflow_id, value, f"mail.{place}")
        return [recv(f"mail.{place}", type=int, timeout=NEVER) for _ in written(number)]

    def late_mail(self, number: int, *, place: int) -> str:
        try:
            recv(f"late.{place}", timeout=0.001 * number)
        except MessageTimeoutError:
            return "too late"
        return "in time"

    def tell(self, number: int, **_: Any) -> str:
        for value in written(number):
            set_event("told", value)
        return "told"

    def saga(self, number: int, **_: Any) -> str:
        handle = undone.start(number)
        if number % 2 == 0:
            assert list(read_stream(handle.workflow_id, "done", until=number)) == written(number)
            handle.cancel(reason="enough")
        try:
            handle.result()
        except (LookupError, WorkflowCancelledError) as error:
            return how_it_ended(error)
        return "no error"

    def inputs(self, number: int, **_: Any) -> list[int]:
        if self._has_read:
            return []
        self._has_read = True
        write_inputs(number)
        return list(read_input(INPUT, until=number))

    def write(self, number: int, **_: Any) -> str:
        return self._append([number])

    def many(self, number: int, **_: Any) -> str:
        return self._append(written(30 * number))

    def _append(self, values: list[int]) -> str:
        try:
            self._stream.writer().write_many(values)
        except StreamClosedError:
            return "refused"
        return "written"

    def flush(self, _number: int, **_: Any) -> str:
        self._stream.writer().flush()
        return "flushed"

    def emitted(self, _number: int, **_: Any) -> list[int]:
        return self._stream.writer().emitted()

    def close(self, _number: int, **_: Any) -> str:
        self._stream.writer().close()
        return "closed"

    def in_step(self, number: int, *, place: int) -> int:
        return write_in_step(f"step.{place}", number)

    def call(self, _number: int, _async: bool, plan: Any, **_: Any) -> list[Any]:  # noqa: FBT001
        return carry_out(plan)

    def other_colour(self, _number: int, _async: bool, plan: Any, **_: Any) -> list[Any]:  # noqa: FBT001
        return carry_out_async.run(plan)

    def _child(self, of_async: bool) -> Any:  # noqa: FBT001
        return carry_out_async if of_async else carry_out

    def start(self, _number: int, of_async: bool, plan: Any, **_: Any) -> list[Any]:  # noqa: FBT001
        handle = self._child(of_async).start(plan)
        return [handle.result(), str(handle.status()), handle.cancel().outcome]

    def by_id(self, _number: int, of_async: bool, plan: Any, **_: Any) -> list[Any]:  # noqa: FBT001
        handle = self._child(of_async).start(plan)
        info = handle.info()
        result: list[Any] = ENGINE[0].handle(info.id, self._child(of_async)).result()
        return result

    def engine(self, _number: int, of_async: bool, plan: Any, **_: Any) -> list[Any]:  # noqa: FBT001
        result: list[Any] = ENGINE[0].run(self._child(of_async), plan)
        return result

    def read(self, _number: int, of_async: bool, plan: Any, **_: Any) -> list[int]:  # noqa: FBT001
        return list(read_stream(self._child(of_async).start(plan).workflow_id, "own"))

    def each(self, _number: int, of_async: bool, plan: Any, **_: Any) -> int:  # noqa: FBT001
        return for_each(read_stream(self._child(of_async).start(plan).workflow_id, "own"), double).count

    def failing_child(self, number: int, _async: bool, plan: Any, **_: Any) -> str:  # noqa: FBT001
        try:
            carry_out(plan, number)
        except LookupError as error:
            return f"LookupError: {error}"
        return "no error"


class _Async(AsyncAnswers):
    """A branch of an async workflow. Each method carries out a kind of line."""

    def __init__(self, name: str, *, has_read: bool = True) -> None:
        self._name = name
        self._stream: Stream[int, Any] = Stream(f"own{name}")
        self._has_read = has_read

    async def run(self, plan: list[Any]) -> list[Any]:
        """What the lines come to, one after the other."""
        return [await self.carry_out(line, place) for place, line in enumerate(plan)]

    async def carry_out(self, line: list[Any], place: int) -> Any:
        """What a line comes to."""
        kind, number, *more = line
        return await getattr(self, kind)(number, *more, place=place)

    async def step(self, number: int, **_: Any) -> int:
        return await double_async(number)

    async def relaxed(self, number: int, **_: Any) -> int:
        found = number
        for _one in range(number):
            found = await count_up_async(found)
        return found

    async def flaky(self, number: int, **_: Any) -> int:
        return await flaky.run_async(number)

    async def transaction(self, number: int, *, place: int) -> int:
        return await transact_async(f"transaction{self._name}.{place}", number)

    async def failing(self, number: int, **_: Any) -> str:
        try:
            await fail.run_async(number)
        except ValueError as error:
            return f"ValueError: {error}"
        return "no error"

    async def sleep(self, number: int, **_: Any) -> str:
        await sleep_async(0.001 * number)
        return "slept"

    async def late(self, number: int, **_: Any) -> str:
        try:
            async with asyncio.timeout(0.001 * number):
                await sleep_async(NEVER)
        except TimeoutError:
            return "too late"
        return "in time"

    async def scoped(self, _number: int, **_: Any) -> str:
        await set_scope.run_async()
        return _whose.get()

    async def deadline(self, number: int, **_: Any) -> str:
        try:
            async with timeout(0.001 * number):
                await sleep_async(NEVER)
        except TimeoutError:
            return "too late"
        return "in time"

    async def close_call(self, number: int, **_: Any) -> int:
        try:
            async with asyncio.timeout(0.001 * number):
                return await double_async(number)
        except TimeoutError:
            return await double_async(number)

    async def durable_close_call(self, number: int, **_: Any) -> int:
        try:
            async with timeout(0.001 * number):
                return await double_async(number)
        except TimeoutError:
            return await double_async(number)

    async def changed(self, number: int, **_: Any) -> int:
        if patched("number"):
            await double_async(number)
        return await double_async(number)

    async def draw(self, number: int, **_: Any) -> str:
        drawn = draw()
        if number % 2 == 0:
            return "drawn"
        return "the same" if await repeat.run_async(drawn) == drawn else "another"

    async def mail(self, number: int, *, place: int) -> list[int]:
        topic = f"mail{self._name}.{place}"
        for value in written(number):
            await send_async(current().workflow_id, value, topic)
        if number % 2:
            received = (recv_async(topic, type=int, timeout=NEVER) for _ in written(number))
            return sorted(await asyncio.gather(*received))
        return [await recv_async(topic, type=int, timeout=NEVER) for _ in written(number)]

    async def late_mail(self, number: int, *, place: int) -> str:
        try:
            await recv_async(f"late{self._name}.{place}", timeout=0.001 * number)
        except MessageTimeoutError:
            return "too late"
        return "in time"

    async def tell(self, number: int, **_: Any) -> str:
        for value in written(number):
            await set_event_async(f"told{self._name}", value)
        return "told"

    async def saga(self, number: int, **_: Any) -> str:
        handle = await undone_async.start_async(number)
        if number % 2 == 0:
            channel = read_stream_async(handle.workflow_id, "done", until=number)
            assert [item.value async for item in channel if not item.closed] == written(number)
            await handle.cancel_async(reason="enough")
        try:
            await handle.result_async()
        except (LookupError, WorkflowCancelledError) as error:
            return how_it_ended(error)
        return "no error"

    async def inputs(self, number: int, **_: Any) -> list[int]:
        if self._has_read:
            return []
        self._has_read = True
        await write_inputs.run_async(number)
        return [item.value async for item in read_input_async(INPUT, until=number) if not item.closed]

    async def write(self, number: int, **_: Any) -> str:
        return await self._append([number])

    async def many(self, number: int, **_: Any) -> str:
        return await self._append(written(30 * number))

    async def _append(self, values: list[int]) -> str:
        try:
            await self._stream.writer().write_many_async(values)
        except StreamClosedError:
            return "refused"
        return "written"

    async def flush(self, _number: int, **_: Any) -> str:
        await self._stream.writer().flush_async()
        return "flushed"

    async def emitted(self, _number: int, **_: Any) -> list[int]:
        return await self._stream.writer().emitted_async()

    async def close(self, _number: int, **_: Any) -> str:
        await self._stream.writer().close_async()
        return "closed"

    async def in_step(self, number: int, *, place: int) -> int:
        return await write_in_step.run_async(f"step{self._name}.{place}", number)

    # -- children ----------------------------------------------------------------------------------------------------

    async def call(self, _number: int, _async: bool, plan: Any, **_: Any) -> list[Any]:  # noqa: FBT001
        return await carry_out_async(plan)

    async def other_colour(self, _number: int, _async: bool, plan: Any, **_: Any) -> list[Any]:  # noqa: FBT001
        return await carry_out.run_async(plan)

    def _child(self, of_async: bool) -> Any:  # noqa: FBT001
        return carry_out_async if of_async else carry_out

    async def start(self, _number: int, of_async: bool, plan: Any, **_: Any) -> list[Any]:  # noqa: FBT001
        handle = await self._child(of_async).start_async(plan)
        result = await handle.result_async()
        return [result, str(await handle.status_async()), (await handle.cancel_async()).outcome]

    async def by_id(self, _number: int, of_async: bool, plan: Any, **_: Any) -> list[Any]:  # noqa: FBT001
        handle = await self._child(of_async).start_async(plan)
        info = await handle.info_async()
        result: list[Any] = await ENGINE[0].handle(info.id, self._child(of_async)).result_async()
        return result

    async def engine(self, _number: int, of_async: bool, plan: Any, **_: Any) -> list[Any]:  # noqa: FBT001
        result: list[Any] = await ENGINE[0].run_async(self._child(of_async), plan)
        return result

    async def read(self, _number: int, of_async: bool, plan: Any, **_: Any) -> list[int]:  # noqa: FBT001
        handle = await self._child(of_async).start_async(plan)
        return [item.value async for item in read_stream_async(handle.workflow_id, "own") if not item.closed]

    async def each(self, _number: int, of_async: bool, plan: Any, **_: Any) -> int:  # noqa: FBT001
        handle = await self._child(of_async).start_async(plan)
        return (await for_each_async(read_stream_async(handle.workflow_id, "own"), double)).count

    async def failing_child(self, number: int, _async: bool, plan: Any, **_: Any) -> str:  # noqa: FBT001
        try:
            await carry_out_async(plan, number)
        except LookupError as error:
            return f"LookupError: {error}"
        return "no error"

    # -- branches ----------------------------------------------------------------------------------------------------

    def _branches(self, plans: list[Any], place: int) -> Iterator[Coroutine[Any, Any, list[Any]]]:
        return (_Async(f"{self._name}.{place}.{one}").run(plan) for one, plan in enumerate(plans))

    async def gather(self, _number: int, plans: list[Any], *, place: int) -> list[Any]:
        return list(await asyncio.gather(*self._branches(plans, place)))

    async def group(self, _number: int, plans: list[Any], *, place: int) -> list[Any]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in self._branches(plans, place)]
        return [task.result() for task in tasks]

    async def in_time(self, _number: int, plans: list[Any], *, place: int) -> list[Any]:
        async with asyncio.timeout(NEVER):
            return [await asyncio.wait_for(one, NEVER) for one in self._branches(plans, place)]

    async def shield(self, _number: int, plans: list[Any], *, place: int) -> list[Any]:
        return [await asyncio.shield(one) for one in self._branches(plans, place)]

    async def race(self, _number: int, plans: list[Any], *, place: int) -> list[Any]:
        """Which of them wins is timing, and nothing looks at it."""
        tasks = [asyncio.create_task(one) for one in self._branches(plans, place)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return [await task for task in tasks]

    async def waited(self, number: int, plans: list[Any], *, place: int) -> list[Any]:
        """Which of them is done within the time is timing, and nothing looks at it."""
        tasks = [asyncio.create_task(one) for one in self._branches(plans, place)]
        await wait(tasks, timeout=0.001 * number)
        return [await task for task in tasks]

    async def region(self, _number: int, plans: list[Any], *, place: int) -> list[Any]:
        results = []
        for one, body in enumerate(self._branches(plans, place)):
            with branch(f"region{self._name}.{place}.{one}"):
                results.append(await body)
        return results

    async def children(self, _number: int, plans: list[Any], **_: Any) -> list[Any]:
        """Recursion: a branch has the name of the workflow that it calls, as the child has in its parent."""
        return list(await asyncio.gather(*(carry_out_async(plan) for plan in plans)))

    async def mapped(self, number: int, plans: list[Any], **_: Any) -> list[Any]:
        return await map_workflow_async(carry_out_async, plans, concurrency=1 + number % 3)

    async def completed(self, _number: int, plans: list[Any], **_: Any) -> list[Any]:
        """In which order they end is timing; each is answered for once."""
        handles = [await carry_out_async.start_async(plan) for plan in plans]
        first = await wait_first_async(handles)
        ended = {handle.workflow_id: await handle.result_async() async for handle in as_completed_async(handles)}
        assert first.workflow_id in ended
        return [ended[handle.workflow_id] for handle in handles]
