"""Which code's schedules count while workers of several versions come and go."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from dbosflow._runtime.schedules.declarations import Declarations
from dbosflow._store.notify import SCHEDULES_TOPIC
from dbosflow.errors import ConfigurationError, DefinitionError
from dbosflow.schedule_definitions import DeclaredSchedules
from dbosflow.schedules import Schedule
from tests.schedules.world import MINUTE, START, World, minutes

if TYPE_CHECKING:
    from dbosflow.schedule_definitions import ScheduleDef

HERE = __name__


def version(number: int, name: str = "s") -> ScheduleDef:
    """What one version of the code declares."""
    return Schedule(name, "flow_of_no_function", cron="* * * * *", args={"version": number}).definition


class Worker:
    """A worker whose code declares these schedules."""

    def __init__(self, world: World, *definitions: ScheduleDef, module: str = HERE) -> None:
        self.world, self.id = world, uuid4()
        self.declared = DeclaredSchedules()
        for one in definitions:
            self.declared.add(one.name, one.workflow, module, lambda one=one: one)  # type: ignore[misc]  # it has a default
        self.service = Declarations(world.pool, "dbosflow", world.wakeups, world.announced.extend, self.declared)

    async def start(self) -> None:
        """It takes a lease, as an engine does when it opens, and looks."""
        statement = """INSERT INTO dbosflow.worker (id, lease, host, pid, version, schedules)
                       VALUES (%s, 10, 'host', 1, '1', %s)"""
        await self.world.rows(statement, self.id, self.declared.fingerprints())
        await self.look()

    async def look(self) -> None:
        """As it does when workers come and go."""
        await self.service.work_once()

    async def die(self) -> None:
        """Its lease is over."""
        await self.world.rows("UPDATE dbosflow.worker SET state = 'dead' WHERE id = %s", self.id)
        await self.service.close()


async def counting(world: World, name: str = "s") -> int:
    """Of which version the schedule is."""
    return int((await world.info(name)).args["version"])


async def test_new_code_replaces_old_code_and_old_code_never_replaces_new_code(world: World) -> None:
    """However often a worker of the old code starts again while the new code is deployed."""
    old, new = Worker(world, version(1)), Worker(world, version(2))
    await old.start()
    assert await counting(world) == 1
    await new.start()
    assert await counting(world) == 2
    await old.look()
    again = Worker(world, version(1))
    await again.start()
    assert await counting(world) == 2
    await old.die()
    await again.die()
    await new.look()
    assert await counting(world) == 2


async def test_after_a_rollback_the_old_code_counts_again(world: World) -> None:
    """Once the last worker of the new code is gone; and the new code, if it comes again, is the newer one still."""
    old, new = Worker(world, version(1)), Worker(world, version(2))
    await old.start()
    await new.start()
    await new.die()
    await old.look()
    assert await counting(world) == 1
    again = Worker(world, version(2))
    await again.start()
    assert await counting(world) == 2
    await old.look()
    assert await counting(world) == 2


async def test_a_schedule_that_is_gone_from_the_code_is_paused_once_nobody_declares_it(world: World) -> None:
    old, new = Worker(world, version(1)), Worker(world)
    await old.start()
    await new.start()
    assert (await world.info()).paused is False
    await old.die()
    await new.look()
    info = await world.info()
    assert (info.paused, info.paused_because) == (True, "gone")
    back = Worker(world, version(1))
    await back.start()
    assert (await world.info()).paused is False


async def test_a_worker_that_serves_other_modules_pauses_nothing(world: World) -> None:
    """It has not loaded the module; and a script says nothing about another script."""
    for number, module in enumerate(("a_module_that_is_not_here", "__main__")):
        worker = Worker(world, version(1, f"s{number}"), module=module)
        await worker.start()
        await worker.die()
    await Worker(world).start()
    assert [info.paused for info in await world.requests.all()] == [False, False]


async def test_a_pause_by_a_person_stays_whatever_code_comes(world: World) -> None:
    old, new = Worker(world, version(1)), Worker(world, version(2))
    await old.start()
    await world.requests.pause("s")
    await new.start()
    info = await world.info()
    assert (info.args, info.paused_because) == ({"version": 2}, "request")


async def test_a_tick_that_is_due_while_new_code_comes_is_started(world: World) -> None:
    """Its next tick stays where it was."""
    worker = Worker(world, version(1))
    await worker.start()
    await world.rows("UPDATE dbosflow.schedule SET next_at = %s, checked_at = %s", START, START)
    await Worker(world, version(2)).start()
    await world.at(START + MINUTE)
    assert await world.started() == minutes(0, 1)
    (first,) = await world.rows("SELECT input FROM dbosflow.workflow ORDER BY id LIMIT 1")
    assert first["input"] == {"version": 2}


async def test_what_is_brought_in_already_is_written_no_more(world: World) -> None:
    worker = Worker(world, version(1))
    await worker.start()
    before = await world.rows("SELECT version FROM dbosflow.schedule")
    world.announced.clear()
    await worker.look()
    assert await world.rows("SELECT version FROM dbosflow.schedule") == before
    assert SCHEDULES_TOPIC not in world.announced


async def test_code_and_calls_do_not_take_each_others_schedules(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await world.apply("mine")
    worker = Worker(world, version(1), version(1, "mine"))
    await worker.start()
    assert (await world.info("mine")).declared_in is None
    assert "delete the other first" in caplog.text
    with pytest.raises(ConfigurationError, match="declared in"):
        await world.apply("s")
    with pytest.raises(ConfigurationError, match="would bring it in again"):
        await world.requests.delete("s")
    await worker.die()
    await world.requests.delete("s")
    assert [info.name for info in await world.requests.all()] == ["mine"]


async def test_all_versions_agree_in_the_end_in_whichever_order_they_come(world: World) -> None:
    """Each looks again when others come and go."""
    workers = [Worker(world, version(number)) for number in (1, 2, 3)]
    for one in workers:
        await one.start()
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        for place in order:
            await workers[place].look()
        assert await counting(world) == 3
    (row,) = await world.rows("SELECT fingerprints FROM dbosflow.schedule")
    assert row["fingerprints"] == [version(number).fingerprint for number in (1, 2, 3)]


def test_two_workflows_cannot_have_schedules_of_one_name() -> None:
    declared = DeclaredSchedules()
    declared.add("s", "flow_of_no_function", HERE, lambda: version(1))
    declared.add("s", "flow_of_no_function", HERE, lambda: version(2))  # the module is loaded again
    assert json.loads(declared.fingerprints()) == {"s": version(2).fingerprint}
    with pytest.raises(DefinitionError, match="two schedules"):
        declared.add("s", "other", HERE, lambda: version(1))
