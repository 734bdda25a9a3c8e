"""The slots of ``dbosflow worker``: how its queues share them."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest

from dbosflow import Engine, workflow
from tests.cli.waiting import start_worker
from tests.support import eventually

if TYPE_CHECKING:
    from tests.cli.shell import Shell

HOLDING = """
import asyncio
from pathlib import Path
from dbosflow import step, workflow

@step
async def hold(name: str) -> None:
    Path(f"{name}.begun").touch()
    while not Path(f"{name}.over").exists():
        await asyncio.sleep(0.01)

@workflow
async def holding(name: str) -> None:
    await hold(name)
"""

START = """
import sys
from app import holding
from dbosflow import Engine

with Engine(executes=False) as engine:
    for queue in sys.argv[2:]:
        for number in range(int(sys.argv[1])):
            engine.start(holding.options(queue=queue), f"{queue}-{number}")
"""


def enqueue(shell: Shell, count: int, *queues: str) -> None:
    shell.write("app.py", HOLDING)
    done = shell.python("-c", START, str(count), *queues).end()
    assert done.status == 0, done.err


def running(shell: Shell) -> Counter[str]:
    """How many of each queue are at their step."""
    begun = {path.stem for path in shell.directory.glob("*.begun")}
    over = {path.stem for path in shell.directory.glob("*.over")}
    return Counter(name.partition("-")[0] for name in begun - over)


def is_running(shell: Shell, expected: dict[str, int]) -> bool:
    return running(shell) == expected


def end_one(shell: Shell, queue: str) -> None:
    over = {path.stem for path in shell.directory.glob("*.over")}
    name = min(path.stem for path in shell.directory.glob(f"{queue}-*.begun") if path.stem not in over)
    (shell.directory / f"{name}.over").touch()


def test_queues_with_weights_share_the_slots_of_a_worker(shell: Shell) -> None:
    """One that alone has work runs on all slots; what comes free goes to the other, until each has its share."""
    enqueue(shell, 8, "bulk")
    start_worker(shell, "app", "--queue", "bulk", "--queue", "urgent:3", "--concurrency", "4")
    eventually(lambda: running(shell) == {"bulk": 4})
    enqueue(shell, 8, "urgent")
    for expected in ({"bulk": 3, "urgent": 1}, {"bulk": 2, "urgent": 2}, {"bulk": 1, "urgent": 3}):
        end_one(shell, "bulk")
        eventually(partial(is_running, shell, expected))
    end_one(shell, "bulk")
    eventually(lambda: running(shell) == {"bulk": 1, "urgent": 3})
    for _ in range(8):  # the rest of the one: then the other has all again
        end_one(shell, "urgent")
        eventually(lambda: sum(running(shell).values()) == 4 or not running(shell)["urgent"])
    eventually(lambda: running(shell) == {"bulk": 3})


def test_a_queue_whose_name_ends_in_a_number_has_its_weight_behind_it(shell: Shell, bare_shell: Shell) -> None:
    """As the help says, since the name alone is another queue with a weight."""
    enqueue(shell, 1, "a:3", "a")
    start_worker(shell, "app", "--queue", "a:3:1", "--processes", "1")
    eventually(lambda: running(shell) == {"a:3": 1})
    assert "a:3:1 is the queue a:3" in " ".join(bare_shell.run("worker", "--help").out.split())


def test_a_queue_may_have_fewer_slots_than_the_others(shell: Shell) -> None:
    """Also in the processes of a supervisor, which get the options handed on."""
    enqueue(shell, 4, "narrow", "wide")
    options = ("--queue", "narrow", "--queue", "wide", "--concurrency", "3", "--queue-concurrency", "narrow=1")
    start_worker(shell, "app", *options, "--processes", "1")
    eventually(lambda: running(shell) == {"narrow": 1, "wide": 3})
    end_one(shell, "narrow")
    eventually(lambda: len(list(shell.directory.glob("narrow-*.begun"))) == 2)
    assert running(shell) == {"narrow": 1, "wide": 3}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--queue", "a:1", "--queue", "a:2"), "two things about 'a'"),
        (("--queue", "a", "--queue-concurrency", "b=1"), "goes with --queue b"),
        (("--queue", "a:0"), "no whole number"),
        (("--queue", "a:"), "no whole number"),
        (("--queue", "a:1.5"), "no whole number"),
        (("--queue-concurrency", "5"), "write NAME=N"),
    ],
)
def test_contradicting_options_are_refused(bare_shell: Shell, options: tuple[str, ...], said: str) -> None:
    """As a wrong command line, before anything is started."""
    done = bare_shell.run("worker", "app", *options)
    assert done.status == 2
    assert said in done.err


@workflow
async def below() -> str:
    return "done"


@workflow
async def above() -> str:
    return await (await below.options(queue="below").start_async()).result_async()


async def test_a_parent_makes_room_for_the_child_that_shares_its_slot(database_url: str) -> None:
    """The worker has one slot for both queues. A parent that only waits leaves it after a second."""
    async with Engine(database_url) as engine:
        serving = asyncio.create_task(
            engine.run_worker_async("above", "below", concurrency=1, weights={"above": 1, "below": 1})
        )
        handle = await engine.start_async(above.options(queue="above"))
        assert await handle.result_async(30) == "done"
        serving.cancel()
