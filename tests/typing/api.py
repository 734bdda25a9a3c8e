"""What the type checker says of the public interface. Nothing here runs: mypy checks it with everything else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, assert_type
from uuid import UUID

import psycopg

from dbosflow import (
    AsyncRequest,
    Cause,
    Engine,
    Message,
    Queue,
    QueueInfo,
    Rate,
    Schedule,
    ScheduleInfo,
    StreamChannel,
    StreamReader,
    StreamValue,
    Tick,
    WorkerInfo,
    WorkflowFilter,
    WorkflowFork,
    WorkflowHandle,
    WorkflowInfo,
    as_completed_async,
    compensate,
    continue_as_new,
    create_token,
    create_token_async,
    current,
    durable,
    map_workflow_async,
    recv,
    recv_async,
    requests,
    run_step,
    run_step_async,
    schedule,
    send,
    send_async,
    set_event,
    set_event_async,
    step,
    transaction,
    wait_first_async,
    workflow,
)
from dbosflow.http import (
    Endpoint,
    FrameEvent,
    HttpApp,
    ReadTokens,
    create_app,
    expose,
    expose_openapi,
    expose_tokens,
    stream_events,
)
from dbosflow.streams.pages import StreamPage
from dbosflow.testing import StreamRun, run_stream
from dbosflow.types import Event, Page, StepInfo, WorkflowChange


@step
def sync_step(x: int) -> str:
    """A sync step."""
    return str(x)


@step(max_attempts=3, retry_on=(OSError, ValueError))
async def async_step(x: int, *, unit: str = "m") -> float:
    """An async step with options."""
    return float(x) if unit else 0.0


@transaction
def sync_transaction(connection: psycopg.Connection, x: int) -> str:
    """A sync transaction."""
    return f"{connection.closed}{x}"


@transaction(isolation="serializable", read_only=True, timeout=3, max_conflicts=3, max_attempts=2)
async def async_transaction(connection: psycopg.AsyncConnection, x: int, *, unit: str = "m") -> float:
    """An async transaction with options."""
    return float(x) if unit and connection.closed else 0.0


def outside(connection: psycopg.Connection) -> None:
    """Outside of workflows the caller passes the connection."""
    assert_type(sync_transaction(connection, 1), str)
    sync_transaction(connection, "one")  # type: ignore[call-overload]


@workflow(compensates=True, compensation_timeout=60, timeout=3600)
def sync_flow(x: int) -> str:
    """A sync workflow."""
    assert_type(sync_step(x), str)
    assert_type(async_step.run(x, unit="km"), float)
    assert_type(run_step("length", len, "abc"), int)
    assert_type(sync_transaction(x), str)
    assert_type(sync_transaction.run(x), str)
    assert_type(async_transaction.run(x, unit="km"), float)
    sync_transaction("one")  # type: ignore[call-overload]
    compensate(sync_transaction, 1)
    compensate(sync_step, 1)
    compensate(async_step, 1, unit="km")
    compensate(async_step, "one")  # type: ignore[arg-type]
    current().update_attributes({"tenant": "acme", "retries": 3, "old": None})
    current().update_attributes({"tenant": 1.5})  # type: ignore[dict-item]
    if x < 0:
        continue_as_new(x + 1)
    assert_type(recv("topic", type=int, timeout=1.0), int)
    assert_type(recv(), Any)
    assert_type(run_step(len, "abc", max_attempts=3, retry_on=lambda error: isinstance(error, OSError)), int)
    run_step(len, 3)  # type: ignore[arg-type]
    assert_type(send("other", 1, "topic"), int)
    for request in requests("question", type=int, reply=str):
        assert_type(request.value, int)
        request.reply("a")
    assert_type(create_token().wait(type=int), int)
    set_event("state", 1)
    return sync_step(x)


@workflow(name="named")
async def async_flow(x: int) -> list[float]:
    """An async workflow with options."""
    assert_type(await async_step(x), float)
    assert_type(await async_transaction(x), float)
    assert_type(await sync_transaction.run_async(x), str)
    assert_type(await sync_step.run_async(x), str)
    assert_type(await run_step_async("length", len, "abc"), int)
    assert_type(await run_step_async(async_step, 3, name="other", jitter=0.2, timeout=5, relaxed=True), float)
    assert_type(await run_step_async(len, "abc", name="length"), int)
    assert_type(await map_workflow_async(async_flow, [1, 2], concurrency=2), list[list[float]])
    assert_type(
        await map_workflow_async(sync_flow.options(queue="q"), [1], return_exceptions=True), list[str | BaseException]
    )
    await map_workflow_async(sync_flow, ["no int"])  # type: ignore[arg-type]
    handles = [await sync_flow.start_async(1)]
    assert_type(await wait_first_async(handles), WorkflowHandle[str])
    async for handle in as_completed_async(handles):
        assert_type(handle, WorkflowHandle[str])
    assert_type(durable.now(), datetime)
    assert_type(durable.uuid4(), UUID)
    assert_type(durable.random(), float)
    assert_type(durable.Random().choice([1]), int)
    assert_type(await recv_async("topic", type=int, timeout=1.0), int)
    assert_type(await recv_async(), Any)
    assert_type(await send_async("other", 1), int)
    async for request in requests("question", type=int, reply=str):
        assert_type(request, AsyncRequest[int, str])
        await request.reply(1)  # type: ignore[arg-type]
    assert_type(await (await create_token_async()).wait_async(type=int), int)
    await set_event_async("state", 1)
    return [await async_step(x)]


class Service:
    """Steps may be methods, workflows static or class methods."""

    @step
    def method(self, x: int) -> bytes:
        """A step that takes its instance along."""
        return bytes(x)

    @staticmethod
    @workflow
    def static(x: int) -> int:
        """A workflow in a class."""
        return x

    def use(self) -> bytes:
        """Bound, it has no ``self`` to pass."""
        return self.method(3)


def managing(engine: Engine) -> None:
    """``engine.workflows``."""
    engine.queues.apply(
        Queue("q", concurrency=5, paused=False),
        Queue("r", worker_concurrency=1, partition_concurrency=2, weights={"acme": 2}, bucket="api"),
        Queue("s", partition_rate=Rate(1, per=60)),
    )
    engine.queues.apply("q")  # type: ignore[arg-type]
    engine.queues.pause("q", until=timedelta(minutes=1))
    assert_type(engine.list_workers(), tuple[WorkerInfo, ...])
    assert_type(engine.queues.list(), tuple[QueueInfo, ...])
    assert_type(engine.queues.info("q"), QueueInfo)
    assert_type(engine.workflows.list(WorkflowFilter(status="failed")), Page[WorkflowInfo])
    assert_type(next(engine.workflows.iterate()), WorkflowInfo)
    assert_type(engine.workflows.count(), int)
    assert_type(engine.workflows.count(WorkflowFilter(queue=["a", "b"]), by="status"), dict[str, int])
    assert_type(engine.workflows.get("a"), WorkflowInfo)
    assert_type(engine.workflows.explain("a").causes, tuple[Cause, ...])
    assert_type(engine.workflows.versions()[0].pinned, int)
    assert_type(engine.workflows.unpin(["a"]), list[WorkflowChange])
    assert_type(engine.workflows.set_priority(["a"], 1), list[WorkflowChange])
    assert_type(engine.workflows.export(["a"], "file").skipped, tuple[str, ...])
    assert_type(engine.workflows.import_("file", skip_existing=True).rows, int)
    assert_type(engine.workflows.steps("a", outputs=False).items, tuple[StepInfo, ...])
    assert_type(engine.workflows.resume("a"), list[WorkflowChange])
    assert_type(engine.workflows.cancel(["a", "b"], reason="why"), list[WorkflowChange])
    assert_type(engine.workflows.delete(WorkflowFilter(status="failed"), progress=print), list[WorkflowChange])
    assert_type(engine.workflows.fork("a", from_step="b#0", output=1), WorkflowFork)
    assert_type(engine.workflows.fork("a", from_turn=0, workflow_id="b", queue="c").handle, WorkflowHandle[Any])
    assert_type(engine.workflows.retry("a").again, tuple[str, ...])
    assert_type(engine.workflows.start("named", {"x": 1}, queue="q"), WorkflowHandle[Any])
    engine.workflows.start("named", {"x": 1}, unknown=1)  # type: ignore[call-arg]
    engine.workflows.update_attributes("a", {"customer": "acme", "tries": 3, "old": None})
    sync_flow.options(attributes={"customer": "acme"}, delay=timedelta(hours=1))
    sync_flow.options(run_at=datetime.now(UTC))
    sync_flow.options(dedup_key="k", on_duplicate="replace", delay=5, replace_within=timedelta(minutes=1))
    sync_flow.options(dedup_key="k", on_duplicate="ignore")  # type: ignore[arg-type]
    engine.workflows.count(by="input")  # type: ignore[call-overload]


def blocking(engine: Engine) -> None:
    """The blocking face."""
    assert_type(engine.start(sync_flow, 1), WorkflowHandle[str])
    assert_type(engine.start_many(sync_flow, [(1,)]), list[WorkflowHandle[str]])
    assert_type(engine.start_many(lambda n: sync_flow.options(priority=n), [{"n": 1}]), list[WorkflowHandle[str]])
    assert_type(engine.start_many(sync_flow.options(queue="q"), [(1,)], on_started=len), int)
    assert_type(engine.start_many_in(object(), sync_flow, [(1,)]), list[WorkflowHandle[str]])
    assert_type(engine.start_in(object(), sync_flow, 1), WorkflowHandle[str])
    assert_type(engine.start_in(object(), async_flow.options(queue="q"), 1, notify=True), WorkflowHandle[list[float]])
    engine.start_in(object(), sync_flow, "not an int")  # type: ignore[call-overload]
    assert_type(engine.start(async_flow.options(workflow_id="a"), 1), WorkflowHandle[list[float]])
    assert_type(engine.run(async_flow, 1), list[float])
    assert_type(engine.run(Service.static, 1), int)
    assert_type(engine.handle("a"), WorkflowHandle[Any])
    assert_type(engine.handle("a", sync_flow).result(timeout=1.0), str)
    assert_type(engine.read_stream("a", "k"), StreamReader[Any])
    reader = engine.read_stream("a", "k", type=int)
    assert_type(reader.read_all(), tuple[list[int], bool])
    assert_type(engine.send("a", 1, "topic", idempotency_key="k"), int)
    assert_type(engine.get_event("a", "state", type=int, timeout=1.0), int)
    assert_type(engine.get_event("a", "state"), Any)
    assert_type(engine.events("a"), dict[str, Event])
    assert_type(engine.start(sync_flow, 1, message=Message("topic", 1)), WorkflowHandle[str])
    assert_type(engine.start(async_flow.options(queue="q"), 1, message=Message("", 1)), WorkflowHandle[list[float]])
    assert_type(engine.ask("a", 1, "question", type=str), str)
    assert_type(engine.get_reply("a", 0, "question", type=str), str)
    engine.start(sync_flow, "not an int")  # type: ignore[call-overload]
    engine.start(sync_flow)  # type: ignore[call-overload]
    sync_step("not an int")  # type: ignore[arg-type]


async def awaitable(engine: Engine) -> None:
    """The awaitable face."""
    assert_type(await engine.start_async(async_flow, 1), WorkflowHandle[list[float]])
    assert_type(await engine.run_async(sync_flow, x=1), str)
    assert_type(await engine.handle("a", async_flow).result_async(), list[float])
    channel = engine.read_stream_async("a", "k", type=float)
    assert_type(channel, StreamChannel[float])
    async for item in channel:
        assert_type(item, StreamValue[float])
    async for page in engine.read_stream_pages("a", "k", view="committed"):
        assert_type(page, StreamPage)
    async for event in stream_events(engine, "a", "k"):
        assert_type(event, FrameEvent)
    assert_type(create_app(engine, streams=["k"], workflows=[async_flow], authorize=lambda *_: True), HttpApp)
    assert_type(ReadTokens(b"").sign("a", "k"), str)


def over_http() -> None:
    """Endpoints, and runs of them."""
    endpoint = expose(sync_flow, "/flows", mode="aggregate")
    named: Endpoint[[int], str] = endpoint
    other: Endpoint[[int], list[float]] = expose(async_flow.options(queue="q"), "/others", mode="aggregate")
    expose(sync_step, "/steps")  # type: ignore[arg-type]
    assert_type(create_app(Engine(), endpoints=[named, other, expose_tokens(), expose_openapi(endpoint)]), HttpApp)
    assert_type(run_stream(endpoint, 1, http=True), StreamRun)


@schedule(cron="0 3 * * *", timezone="Europe/Oslo", overlap="skip", catch_up=timedelta(hours=2))
@workflow
async def scheduled(tick: Tick, number: int = 1) -> datetime:
    return tick.scheduled_at


async def check_schedules(engine: Engine) -> None:
    assert_type(await scheduled.run_async(Tick("s", datetime(2026, 1, 1, tzinfo=UTC))), datetime)
    assert_type(await engine.schedules.apply_async(Schedule("s", scheduled, every=60)), ScheduleInfo)
    Schedule("s", scheduled, evry=60)  # type: ignore[call-arg]
    Schedule("s", scheduled, every=60, overlap="never")  # type: ignore[arg-type]
    assert_type(await engine.schedules.list_async(), list[ScheduleInfo])
    assert_type(await engine.schedules.trigger_async("s"), WorkflowHandle[Any])
    assert_type(await engine.schedules.backfill_async("s", datetime(2026, 1, 1, tzinfo=UTC)), int)
