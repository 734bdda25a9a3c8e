"""The lines of a plan that have no lines of their own, as workflows of each colour carry them out."""

from __future__ import annotations

import asyncio
from typing import Any

from dbosflow import (
    Stream,
    current,
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
    timeout,
)
from dbosflow.errors import MessageTimeoutError, StreamClosedError, WorkflowCancelledError
from tests.oracle.answers import AsyncAnswers, SyncAnswers
from tests.oracle.expected import INPUT, written
from tests.oracle.steps import (
    NEVER,
    count_up,
    count_up_async,
    double,
    double_async,
    draw,
    fail,
    flaky,
    how_it_ended,
    repeat,
    set_scope,
    transact,
    transact_async,
    undone,
    undone_async,
    whose,
    write_in_step,
    write_inputs,
)


class SyncLines(SyncAnswers):
    """The lines of a sync workflow. Each method carries out a kind of line."""

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
        return whose.get()

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


class AsyncLines(AsyncAnswers):
    """The lines of an async one."""

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
        return whose.get()

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
