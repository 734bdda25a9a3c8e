"""The workflows that carry plans out, with what authors of workflows are given: one of each colour."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from dbosflow import (
    as_completed_async,
    branch,
    continue_as_new,
    for_each,
    for_each_async,
    map_workflow,
    map_workflow_async,
    read_stream,
    read_stream_async,
    wait,
    wait_first_async,
    workflow,
)
from tests.oracle.answers import ENGINE
from tests.oracle.expected import INPUT
from tests.oracle.lines import AsyncLines, SyncLines
from tests.oracle.plans import AGAIN
from tests.oracle.steps import NEVER, double

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator


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


class _Sync(SyncLines):
    """The body of a sync workflow, with the lines that call children."""

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

    def mapped(self, number: int, plans: list[Any], **_: Any) -> list[Any]:
        return map_workflow(carry_out, plans, concurrency=1 + number % 3)

    def failing_child(self, number: int, _async: bool, plan: Any, **_: Any) -> str:  # noqa: FBT001
        try:
            carry_out(plan, number)
        except LookupError as error:
            return f"LookupError: {error}"
        return "no error"


class _Async(AsyncLines):
    """A branch of an async one, with the lines that call children or have branches."""

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
