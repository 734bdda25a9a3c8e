"""Units of starts, and what workflows say that they have really used: how much of a rate is taken, and how often."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine, Queue, Rate, Schedule, current, step, workflow
from dbosflow._store import used_units
from dbosflow.cli import main
from dbosflow.errors import ConfigurationError, InWorkflowError
from tests.behaviour.interruption import Interruption
from tests.behaviour.programs.using import using
from tests.behaviour.tables import records
from tests.behaviour.worker_pool import QUEUE, WorkerPool
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.behaviour.conftest import StartProgram

    Execute = Callable[..., list[tuple[Any, ...]]]

PATIENCE = 60.0
SLOW = Rate(1000, per=1_000_000, bucket="api")
"""A thousand units at once, and then one in a thousand seconds: what was taken stays so for a test."""
TAKEN = "SELECT coalesce(round(extract(epoch FROM rate_next_at - now()) / 1000), 0)::integer FROM dbosflow.bucket"


@workflow(name="units.job")
async def job(number: int = 0) -> int:
    """Short work."""
    return number


@step(max_attempts=3, interval=0)
async def calling(spent: list[int], failing: list[int]) -> None:
    """Spends something in each attempt, and fails as often as there are entries."""
    await current().use_async(spent[0])
    if failing:
        failing.pop()
        raise ConnectionError


@workflow(name="units.body")
async def using_in_body(*units: int) -> None:
    for number in units:
        await current().use_async(number)


@workflow(name="units.thread")
def using_on_thread(*units: int) -> None:
    for number in units:
        current().use(number)


@step
def spending(units: int) -> None:
    current().use(units)


@workflow(name="units.step")
def using_in_step(*units: int) -> None:
    for number in units:
        spending(number)


def serve(engine: Engine, *queues: str) -> Engine:
    """Makes the engine a worker of these queues, until it closes."""
    threading.Thread(target=engine.run_worker, args=queues, daemon=True).start()
    return engine


@pytest.fixture
def taken(execute: Execute) -> Callable[[], int]:
    """How many units of the bucket are taken."""
    return lambda: int(execute(TAKEN)[0][0])


# -- starts ------------------------------------------------------------------------------------------------------------


def test_every_way_to_start_takes_units(client: Engine, database_url: str, execute: Execute) -> None:
    """One is the default, and is not stored."""
    spec = job.options(queue="q", units=7)
    client.start(spec)
    client.start(job.options(queue="q"))
    client.start_many(spec, [(1,), (2,)])
    client.start(job.options(queue="q", units=7, dedup_key="k", on_duplicate="replace"))
    client.workflows.start("units.job", {"number": 1}, queue="q", units=7)
    assert main(["workflow", "start", "units.job", "--queue", "q", "--units", "7", "--database-url", database_url]) == 0
    client.schedules.apply(Schedule("s", spec, every=3600))
    client.schedules.trigger("s")
    with psycopg.connect(database_url) as connection:
        client.start_in(connection, spec, 1)
        client.start_many_in(connection, spec, [(1,)])
    assert execute("SELECT units, count(*) FROM dbosflow.workflow GROUP BY 1 ORDER BY 1") == [(7, 9), (None, 1)]
    with psycopg.connect(database_url) as connection:
        client.start_in(connection, job.options(queue="q", units=8, workflow_id="given"), 1)
        client.start_many_in(connection, lambda one: job.options(queue="q", units=8, workflow_id=f"w{one}"), [(1,)])
        connection.execute("SELECT dbosflow.start_workflow('units.job', '{}', 'q', units => 8)")
        client.start_in(connection, job.options(queue="q", units=8, dedup_key="other"), 1)
    with Engine(database_url):
        eventually(lambda: execute("SELECT count(*) FROM dbosflow.workflow WHERE units = 8") == [(4,)])


def test_a_later_start_with_the_key_brings_its_units(client: Engine, execute: Execute) -> None:
    """It replaces the one that waits."""
    for units in (5, 6):
        client.start(job.options(queue="q", units=units, dedup_key="k", on_duplicate="replace"))
    assert execute("SELECT units FROM dbosflow.workflow") == [(6,)]


def test_a_schedule_without_units_has_the_fingerprint_that_it_had(client: Engine) -> None:
    """Otherwise workers of both versions would each bring in their own."""
    assert Schedule("s", job, every=60).definition.fingerprint == "1abcea3048d90de49813895a67006e20"
    assert (
        Schedule("s", job.options(queue="q", units=2), every=60).definition.fingerprint
        != "1abcea3048d90de49813895a67006e20"
    )


@pytest.mark.parametrize("units", [0, -1, 2**31, 1.5, 1.0, True, "1"])
def test_wrong_units_are_refused(units: Any) -> None:
    with pytest.raises(ConfigurationError, match="units"):
        job.options(units=units)


def test_units_without_a_queue_are_refused(client: Engine, execute: Execute) -> None:
    """As there is no rate that they could be of. One is what each start has, and starts by name have a queue."""
    with pytest.raises(ConfigurationError, match=r"units=2 are taken of the rate of a queue: add queue="):
        job.options(units=2)
    client.start(job.options(units=1))
    client.workflows.start("units.job", {"number": 1}, units=2)
    execute("SELECT dbosflow.start_workflow('units.job', '{}', NULL, units => 3)")
    assert execute("SELECT queue, units FROM dbosflow.workflow ORDER BY units") == [("default", 2), ("default", None)]
    assert execute("SELECT queue, units FROM dbosflow.outbox") == [("default", 3)]


def test_what_began_took_its_units(engine: Engine, taken: Callable[[], int]) -> None:
    """And what began without a rate took none."""
    serve(engine, "q")
    engine.start(job.options(queue="q", units=50)).result(timeout=PATIENCE)
    engine.queues.apply(Queue("q", rate=SLOW))
    assert taken() == 0
    for units in (1, 400, 30):
        engine.start(job.options(queue="q", units=units)).result(timeout=PATIENCE)
    assert taken() == 431


# -- what was really used ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [using_in_body, using_on_thread, using_in_step], ids=["body", "thread", "step"])
def test_what_was_used_counts_in_place_of_the_units_of_the_start(
    engine: Engine, taken: Callable[[], int], target: Any
) -> None:
    """Less or more: the first call gives back what the start has taken."""
    serve(engine, "q")
    engine.queues.apply(Queue("q", rate=SLOW))
    for used, expected in (((30,), 30), ((70, 80), 180), ((), 230), ((0,), 230), ((2000,), 2230)):
        engine.start(target.options(queue="q", units=50), *used).result(timeout=PATIENCE)
        assert taken() == expected


def test_each_attempt_of_a_step_counts(engine: Engine, taken: Callable[[], int]) -> None:
    """For each has used something."""

    @workflow(name="units.attempts")
    async def attempts() -> None:
        await calling([40], [1, 1])

    serve(engine, "q")
    engine.queues.apply(Queue("q", rate=SLOW))
    engine.start(attempts.options(queue="q", units=50)).result(timeout=PATIENCE)
    assert taken() == 120


def test_a_rate_of_the_queues_own_is_corrected_too(engine: Engine, execute: Execute) -> None:
    """And nothing happens without a queue, or in one without a rate."""
    serve(engine, "q", "free")
    engine.queues.apply(Queue("q", rate=Rate(1000, per=1_000_000)))
    engine.start(using_in_body.options(queue="q", units=50), 20, 5).result(timeout=PATIENCE)
    assert execute(TAKEN.replace("bucket", "queue")) == [(25,)]
    engine.start(using_in_body.options(queue="free", units=50), 20).result(timeout=PATIENCE)
    engine.run(using_in_body, 20)
    assert execute("SELECT count(*) FROM dbosflow.used_units WHERE key <> ''") == [(2,)]


def test_what_began_before_the_rate_has_nothing_to_give_back(engine: Engine, taken: Callable[[], int]) -> None:
    """Or others could begin by units that were never taken."""
    reached, go_on = threading.Event(), threading.Event()

    @workflow(name="units.before")
    def using() -> None:
        reached.set()
        assert go_on.wait(PATIENCE)
        current().use(20)

    serve(engine, "q")
    handle = engine.start(using.options(queue="q", units=50))
    assert reached.wait(PATIENCE)
    engine.queues.apply(Queue("q", rate=SLOW))
    go_on.set()
    handle.result(timeout=PATIENCE)
    assert taken() == 20


@pytest.mark.parametrize("limit", ["rate", "partition_rate"])
def test_an_estimate_of_many_thousands_of_years_is_given_back(engine: Engine, limit: str) -> None:
    """The start has taken no more of it than a century; the database has no interval for all of it."""
    serve(engine, "q")
    limits: dict[str, Any] = {limit: Rate(1, per=10_000, burst=2)}
    engine.queues.apply(Queue("q", **limits))
    handle = engine.start(using_in_body.options(queue="q", partition_key="a", units=2_000_000_000), 1)
    handle.result(timeout=PATIENCE)


def test_a_replay_does_not_count_again(database_url: str, execute: Execute) -> None:
    """Whether the record of the call was written or not; and a repeated step counts in its new attempt."""
    interruption = Interruption()

    @step
    async def spending_at_the_point() -> None:
        await current().use_async(100)
        await interruption.point_async()

    async def using() -> None:
        await current().use_async(20)
        await spending_at_the_point()
        await current().use_async(3)

    with Engine(database_url, grace=0.0) as engine:
        serve(engine, "q")
        engine.queues.apply(Queue("q", rate=SLOW))
        engine.start(workflow(using).options(queue="q", units=50, workflow_id="w"))
        assert interruption.reached()
        assert execute(TAKEN) == [(120,)]
    interruption.let_through()
    # As if a worker had died between the last correction and its record.
    execute("INSERT INTO dbosflow.used_units (workflow_id, key, units) VALUES ('w', 'use#1', 3)")
    with Engine(database_url) as engine:
        serve(engine, "q")
        engine.handle("w").result(timeout=PATIENCE)
    assert execute(TAKEN) == [(220,)]
    assert [key for key, _ in records(database_url, "w")][::2] == ["use#0", "use#1"]


def test_each_call_of_a_body_counts_once_however_often_its_worker_is_killed(
    database_url: str, start_program: StartProgram, client: Engine, execute: Execute
) -> None:
    """Between the correction and its record, too: what is taken in the end is what all calls have said."""
    workflows, calls = 4, 300
    client.queues.apply(Queue(QUEUE, rate=Rate(100_000, per=100_000_000, bucket="api")))
    handles = [client.start(using.options(queue=QUEUE, units=50), calls) for _ in range(workflows)]
    counted = "SELECT count(*) FROM dbosflow.used_units WHERE key <> ''"
    with WorkerPool(database_url, start_program, "using", lease=2.0) as pool:
        for goal, handle in zip((20, 300, 600), handles, strict=False):
            eventually(lambda goal=goal: execute(counted)[0][0] >= goal, timeout=PATIENCE)  # type: ignore[misc]
            assert pool.kill_owner(handle.workflow_id)  # none is over: each waits half-way
        for handle in handles:
            client.send(handle.workflow_id, None, "go on")
        assert [handle.result(timeout=PATIENCE) for handle in handles] == [calls] * workflows
    assert execute(counted) == [(workflows * calls,)]
    assert execute(TAKEN) == [(workflows * calls * (calls + 1) // 2,)]
    assert execute("SELECT max(epoch) > 1 FROM dbosflow.workflow") == [(True,)]


def test_a_call_waits_until_the_outcomes_before_it_are_durable(
    engine: Engine, execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It acts outside of the run's batches, so nothing that it follows from may be forgotten by a crash."""
    seen: list[int] = []
    count = used_units.use

    async def looking(connection: Any, schema: str, calls: Any) -> list[str]:
        seen.append(execute("SELECT count(*) FROM dbosflow.step")[0][0])
        return await count(connection, schema, calls)

    monkeypatch.setattr(used_units, "use", looking)

    @step(relaxed=True)
    async def thinking(number: int) -> int:
        return number

    @step
    async def spending_after(number: int) -> None:
        await current().use_async(number)

    @workflow(name="units.ahead")
    async def ahead() -> None:
        await current().use_async(sum([await thinking(number) for number in range(40)]))
        await spending_after(sum([await thinking(number) for number in range(40)]))

    serve(engine, "q")
    engine.start(ahead.options(queue="q")).result(timeout=PATIENCE)
    assert seen == [40, 81]


def test_units_that_are_given_back_let_the_next_one_begin(database_url: str) -> None:
    """Without a poll: whoever waits for them is notified, in another queue of the bucket, too."""
    with Engine(database_url, safety_poll=1000.0) as engine, Engine(database_url, safety_poll=1000.0) as other:
        serve(engine, "q")
        serve(other, "other")
        engine.queues.apply(Queue("q", rate=SLOW), Queue("other", rate=SLOW))
        reached, go_on = threading.Event(), threading.Event()

        @workflow(name="units.estimate")
        def estimating() -> None:
            reached.set()
            assert go_on.wait(PATIENCE)
            current().use(100)

        first = engine.start(estimating.options(queue="q", units=900))
        assert reached.wait(PATIENCE)
        waiting = engine.start(job.options(queue="other", units=500))
        eventually(lambda: engine.workflows.explain(waiting.workflow_id).causes[0].code == "rate")
        go_on.set()
        waiting.result(timeout=PATIENCE)
        first.result(timeout=PATIENCE)


def test_use_is_for_the_workflow_or_step_that_calls(engine: Engine) -> None:
    """And says what is wrong."""
    kept = []

    @workflow(name="units.keeps")
    async def keeps() -> None:
        kept.append(current())
        with pytest.raises(ConfigurationError, match="units"):
            await current().use_async(-1)

    engine.run(keeps)
    with pytest.raises(InWorkflowError, match="call current"):
        asyncio.run(kept[0].use_async(1))


def test_what_was_used_goes_with_its_workflow(engine: Engine, execute: Execute) -> None:
    """When it is removed."""
    serve(engine, "q")
    engine.queues.apply(Queue("q", rate=SLOW))
    handle = engine.start(using_in_body.options(queue="q", units=50), 20)
    handle.result(timeout=PATIENCE)
    assert execute("SELECT key, units FROM dbosflow.used_units ORDER BY key") == [("", -50), ("use#0", 20)]
    execute("UPDATE dbosflow.workflow SET created_at = %s, ended_at = %s", *[datetime.now(UTC) - timedelta(days=9)] * 2)
    engine.workflows.delete([handle.workflow_id])
    assert execute("SELECT key FROM dbosflow.used_units") == []
