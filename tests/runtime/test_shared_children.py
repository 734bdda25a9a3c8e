"""Parents that start children under one id at the same time: one row, and who has that one is the child of all."""

from __future__ import annotations

import asyncio
from typing import Any

from dbosflow import Engine, step, workflow
from dbosflow.errors import WorkflowConflictError
from tests.behaviour.gate import Gate
from tests.behaviour.tables import disorder, rows

PARENTS = 60
IDS = 5
gates: list[Gate] = []


@step
async def shared_step(number: int) -> int:
    return number


@workflow
async def shared_ends(number: int) -> list[Any]:
    return ["shared_ends", number]


@workflow
async def shared_goes_on(number: int) -> list[Any]:
    return ["shared_goes_on", await shared_step(number)]


@workflow
async def shared_parent(number: int) -> Any:
    child: Any = (shared_ends, shared_goes_on)[number // IDS % 2]
    await gates[-1].passed()
    try:
        return await (await child.options(workflow_id=f"shared {-number % IDS}").start_async(number)).result_async()
    except WorkflowConflictError:
        return "conflict"


async def test_everybody_gets_the_one_that_stands_there(database_url: str) -> None:
    """Its row, its arguments and its result are of one start, also if many come in one statement."""
    gates[:] = [Gate()]
    async with Engine(database_url, safety_poll=3600) as engine:
        parents = [await engine.start_async(shared_parent, number) for number in range(PARENTS)]
        gates[-1].open(PARENTS)
        found = [await asyncio.wait_for(parent.result_async(), 60) for parent in parents]
    standing = "SELECT id, name, input, output FROM dbosflow.workflow WHERE parent_id IS NOT NULL ORDER BY id"
    children = {one: (name, given["number"], output) for one, name, given, output in rows(database_url, standing)}
    assert len(children) == IDS
    for name, given, output in children.values():
        assert output == [name, given]
    for number, result in enumerate(found):
        name, _, output = children[f"shared {-number % IDS}"]
        meant = ("shared_ends", "shared_goes_on")[number // IDS % 2] == name
        assert result == (output if meant else "conflict")
    assert disorder(database_url) == []
