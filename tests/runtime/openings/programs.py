"""Workflows of both colours that end in their openings, or wait there, alone and as children; and what is seen of them.

A module of tests imports what it runs; the fixtures beside this one begin each test with nothing seen.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

from dbosflow import current, step, workflow, write_stream, write_stream_async
from tests.behaviour.gate import Gate
from tests.runtime.openings.faults import standing_in
from tests.support import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow import Engine

PATIENCE = 60.0
ran: Counter[str] = Counter()
seen: list[Any] = []
urls: list[str] = []
goes_on: list[threading.Event] = []
as_it_opens: list[Callable[[], object]] = []
"""What the body of a child does first."""
gates: list[Gate] = []

ALL_ENDED = "SELECT count(*), count(DISTINCT status), min(status) FROM dbosflow.workflow"


def begin(url: str) -> None:
    """Forgets what was seen."""
    ran.clear()
    seen.clear()
    as_it_opens.clear()
    urls[:] = [url]
    goes_on[:] = [threading.Event()]
    gates[:] = [Gate()]


def standing(workflow_id: str) -> list[tuple[Any, ...]]:
    """The workflow's row as others see it now."""
    return standing_in(urls[-1], workflow_id)


def looks_first() -> None:
    """What a body sees of its own row."""
    seen.append((current().workflow_id, standing(current().workflow_id)))


async def run(engine: Engine, flow: Any, *args: Any) -> Any:
    """The workflow's result, which does not take for ever."""
    return await asyncio.wait_for(engine.run_async(flow, *args), PATIENCE)


def nothing_left(engine: Engine) -> bool:
    """Whether the engine runs nothing, and has counted the openings that are over."""
    core: Any = engine._core
    return (core.executor.runner.known(), len(core.executor.openings)) == ([], 0)


# -- async ones --------------------------------------------------------------------------------------------------------


@step
async def opened_looks() -> list[tuple[Any, ...]]:
    """The row of its own workflow, as its body finds it."""
    return standing(current().workflow_id)


@workflow
async def opened_ends_at_once(number: int) -> int:
    ran["ends"] += 1
    looks_first()
    return number + 1


@workflow
async def opened_ends_unseen(number: int) -> int:
    return number


@workflow
async def opened_fails_at_once() -> None:
    msg = "at once"
    raise LookupError(msg)


@workflow
async def opened_asks_first() -> list[Any]:
    ran["asks"] += 1
    seen.append(current().workflow_id)
    return await opened_looks()


@workflow
async def opened_writes_first(count: int) -> int:
    ran["writes"] += 1
    seen.append(current().workflow_id)
    for number in range(count):
        await write_stream_async("values", number)
    return count


@workflow
async def opened_waits_first() -> str:
    seen.append(current().workflow_id)
    await asyncio.sleep(0)
    return "waited"


@workflow
async def opened_foreign() -> str:
    """Stands where a child would."""
    ran["foreign"] += 1
    await gates[-1].passed()
    return "foreign"


# -- sync ones ---------------------------------------------------------------------------------------------------------


@step
def threaded_looks() -> list[tuple[Any, ...]]:
    """The row of its own workflow, as its body finds it."""
    return standing(current().workflow_id)


@workflow
def threaded_ends_at_once(number: int) -> int:
    ran["ends"] += 1
    seen.append(current().workflow_id)
    return number + 1


@workflow
def threaded_fails_at_once() -> None:
    seen.append(current().workflow_id)
    msg = "at once"
    raise LookupError(msg)


@workflow
def threaded_asks_first() -> list[Any]:
    ran["asks"] += 1
    seen.append(current().workflow_id)
    return threaded_looks()


@workflow
def threaded_writes_first(count: int) -> int:
    ran["writes"] += 1
    seen.append(current().workflow_id)
    for number in range(count):
        write_stream("values", number)
    return count


@workflow
def threaded_goes_on() -> int:
    """Does without an operation until it is let."""
    ran["goes on"] += 1
    seen.append(current().workflow_id)
    assert goes_on[-1].wait(TIMEOUT)
    return 7


# -- children: each colour, and with a step in each second ten ---------------------------------------------------------


@workflow
async def opened_child(number: int) -> Any:
    return await opened_looks() if _begins(number) else number * 2


@workflow
def threaded_child(number: int) -> Any:
    return threaded_looks() if _begins(number) else number * 2


def _begins(number: int) -> bool:
    """Whether a child asks for something durable: those from 10 on."""
    ran["child"] += 1
    looks_first()
    for act in as_it_opens:
        act()
    if number < 0:
        msg = "negative"
        raise LookupError(msg)
    return number >= 10


CHILDREN = {"async": opened_child, "sync": threaded_child}


@workflow
async def opened_parent(number: int, of: str = "async") -> Any:
    """Calls a child of either colour."""
    ran["parent"] += 1
    try:
        return await CHILDREN[of].run_async(number)
    except LookupError as error:
        return str(error)


@workflow
def threaded_parent(number: int, of: str = "async") -> Any:
    """The same on a thread."""
    ran["parent"] += 1
    try:
        return CHILDREN[of].run(number)
    except LookupError as error:
        return str(error)


FAMILIES = [(opened_parent, "async"), (opened_parent, "sync"), (threaded_parent, "async"), (threaded_parent, "sync")]
"""Parents of both colours with children of both."""
