"""Engines and the event loops of programs that have several: one after the other, or one that rests."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from dbosflow import Engine, workflow
from dbosflow.errors import EngineClosedError

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 60.0


@workflow
async def on_some_loop() -> str:
    return "done"


async def ran(engine: Engine) -> str:
    return await asyncio.wait_for(engine.run_async(on_some_loop), PATIENCE)


LOOP_AFTER_LOOP = """
import asyncio, sys
from dbosflow import Engine, workflow
from dbosflow.errors import EngineClosedError

@workflow
async def flow():
    return "done"

async def opened_and_ran():
    await engine.open_async()
    return await engine.run_async(flow)

engine = Engine(sys.argv[1], lease=1.5)
print(asyncio.run(opened_and_ran()))
try:
    asyncio.run(engine.run_async(flow))
except EngineClosedError as error:
    print(error)
if sys.argv[2] == "closed":
    asyncio.run(engine.close_async())
print(asyncio.run(opened_and_ran()))
with engine:
    print(engine.run(flow))
"""


@pytest.mark.parametrize("how", ["closed", "left"])
def test_an_engine_whose_loop_has_ended_opens_on_the_next(database_url: str, how: str) -> None:
    """Nothing of it is left that could be used, or closed; and it says so. The program closes no connection of it."""
    command = [sys.executable, "-c", LOOP_AFTER_LOOP, database_url, how]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    first, error, *others = ended.stdout.splitlines()
    assert "the event loop on which the engine was opened has ended" in error, ended.stderr
    assert [first, *others] == ["done"] * 3, ended.stderr


@pytest.fixture
def resting(database_url: str) -> Iterator[tuple[Engine, asyncio.AbstractEventLoop]]:
    """An engine, and its loop, which runs only now and then."""
    engine, loop = Engine(database_url), asyncio.new_event_loop()
    try:
        loop.run_until_complete(engine.open_async())
        yield engine, loop
        loop.run_until_complete(engine.close_async())
    finally:
        loop.close()


def test_who_would_wait_for_a_loop_that_rests_is_told(resting: tuple[Engine, asyncio.AbstractEventLoop]) -> None:
    """It could run again only when the caller has returned. The engine stays as it is."""
    engine, loop = resting
    with pytest.raises(EngineClosedError, match="not running"):
        engine.run(on_some_loop)
    with pytest.raises(EngineClosedError, match="not running"):
        engine.close()
    for use in (ran(engine), engine.close_async()):
        with pytest.raises(EngineClosedError, match="not running"):
            asyncio.run(use)
    assert loop.run_until_complete(ran(engine)) == "done"
