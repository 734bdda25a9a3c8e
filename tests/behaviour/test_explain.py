"""What a workflow waits for is explained from rows: each cause where it is planted, and none where it is not."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, Queue, Rate, map_workflow_async, sleep_async, step, workflow, write_stream_async
from dbosflow.errors import WorkflowNotFoundError
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dbosflow import Explanation

    Execute = Callable[..., list[tuple[Any, ...]]]

let_go = threading.Event()


def codes(explanation: Explanation) -> list[str]:
    return [cause.code for cause in explanation.causes]


@pytest.fixture
def plant(execute: Execute) -> Callable[..., None]:
    """Plants a workflow, with other columns as given."""

    def plant(workflow_id: str, **columns: Any) -> None:
        columns = {"name": "w", "status": "queued", "queue": "q", "input": "{}"} | columns
        names = ", ".join(columns)
        places = ", ".join(["%s"] * len(columns))
        execute(f"INSERT INTO dbosflow.workflow (id, {names}) VALUES (%s, {places})", workflow_id, *columns.values())

    return plant


@pytest.fixture
def add_worker(execute: Execute) -> Callable[..., str]:
    def add(queues: str | None = None, names: str | None = None, *, silent: int = 0, state: str = "live") -> str:
        ((worker_id,),) = execute(
            "INSERT INTO dbosflow.worker (id, state, lease, renewed_at, host, pid, version, queues, names) "
            "VALUES (gen_random_uuid(), %s, 10, now() - %s * interval '1 s', 'far-away', 4711, '0.1.0', %s, %s) "
            "RETURNING id::text",
            *(state, silent, queues, names),
        )
        return str(worker_id)

    return add


def test_one_that_nobody_knows(client: Engine) -> None:
    with pytest.raises(WorkflowNotFoundError):
        client.workflows.explain("nobody")


def test_a_queued_one_waits_for_a_worker_that_serves_and_knows_it(
    client: Engine, plant: Callable[..., None], add_worker: Callable[..., str]
) -> None:
    """First for any, then for one of its queue, then for one with its code, then for a slot."""
    plant("a")
    found = client.workflows.explain("a")
    assert codes(found) == ["no-worker"]
    assert found.causes[0].frees == "start `dbosflow worker MODULE --queue q`"
    add_worker("{other}", "{w}", silent=20)  # not in time
    assert codes(client.workflows.explain("a")) == ["no-worker"]
    add_worker("{other}", "{w}")
    assert codes(client.workflows.explain("a")) == ["no-worker-of-queue"]
    add_worker("{q}", "{other}")
    found = client.workflows.explain("a")
    assert codes(found) == ["unknown-name"]
    assert found.causes[0].text == "no live worker of its queue 'q' knows the workflow 'w'"
    add_worker("{q}", "{other,w}")
    assert codes(client.workflows.explain("a")) == ["slot"]


def test_one_without_a_queue_is_not_said_to_have_one(
    client: Engine, plant: Callable[..., None], add_worker: Callable[..., str]
) -> None:
    plant("a", queue="")
    plant("pinned", queue="dbosflow/pinned/v1/")
    add_worker('{""}', "{other}")
    unknown, pinned = (client.workflows.explain(one).causes[0] for one in ("a", "pinned"))
    assert unknown.text == "no live worker knows the workflow 'w'"
    assert unknown.frees == "import its module in a worker"
    assert pinned.text == "it is pinned to version 'v1', and no live worker carries that"


def test_a_worker_of_older_code_may_serve_anything(
    client: Engine, plant: Callable[..., None], add_worker: Callable[..., str]
) -> None:
    plant("a")
    add_worker()
    assert codes(client.workflows.explain("a")) == ["slot"]


def test_a_slot_says_how_many_are_before_it(
    client: Engine, plant: Callable[..., None], add_worker: Callable[..., str]
) -> None:
    owner = add_worker("{q}", "{w}")
    for number in range(3):
        plant(f"before{number}")
    plant("a")
    plant("urgent", priority=-1)
    plant("behind", priority=1)
    plant("elsewhere", queue="other")
    plant("runs", status="running", worker_id=owner)
    assert "4 are before it in its queue, and 1 of the queue run" in client.workflows.explain("a").causes[0].text


def test_suspects_cancels_and_deadlines(
    client: Engine, plant: Callable[..., None], add_worker: Callable[..., str]
) -> None:
    add_worker("{q}", "{w}")
    plant("a", recoveries=4, cancel_requested_at="2020-01-01", cancel_reason="no need", deadline_at="2220-01-01")
    found = client.workflows.explain("a")
    assert codes(found) == ["cancel-requested", "suspect", "deadline"]
    assert found.causes[2].until is not None
    assert "was requested (no need)" in found.causes[0].text
    assert "4 times" in found.causes[1].text


def test_a_blocked_one_says_why_and_names_the_ways_out(client: Engine, plant: Callable[..., None]) -> None:
    plant("a", status="blocked", error='{"type": "NonDeterminismError", "message": "another step"}')
    (cause,) = client.workflows.explain("a").causes
    assert cause.code == "blocked"
    assert "NonDeterminismError: another step" in cause.text
    for way in ("resume", "cancel", "fork", "replay"):
        assert way in cause.frees


def test_an_ended_one_waits_for_nothing(client: Engine, plant: Callable[..., None]) -> None:
    plant("a", status="failed", error='{"type": "OSError", "message": "gone"}', ended_at="2020-01-01")
    (cause,) = client.workflows.explain("a").causes
    assert (cause.code, "OSError: gone" in cause.text) == ("ended", True)


def test_the_owner_of_a_running_one_may_be_dead(
    client: Engine, plant: Callable[..., None], add_worker: Callable[..., str]
) -> None:
    """It says so, and what takes it over."""
    plant("dead", status="running", worker_id=add_worker("{q}", "{w}", state="dead"))
    plant("silent", status="running", worker_id=add_worker("{q}", "{w}", silent=60))
    plant("lost", status="running", worker_id="00000000-0000-0000-0000-000000000000")
    for workflow_id, code in (("dead", "dead-owner"), ("silent", "silent-owner"), ("lost", "dead-owner")):
        (cause,) = client.workflows.explain(workflow_id).causes
        assert (cause.code, "start a worker" in cause.frees) == (code, True)
    plant("runs", status="running", worker_id=add_worker("{q}", "{w}"))
    assert codes(client.workflows.explain("runs")) == ["running"]
    (cause,) = client.workflows.explain("silent").causes
    assert cause.frees == "another worker takes it over within seconds"


def test_those_that_a_clock_wakes(client: Engine, plant: Callable[..., None]) -> None:
    plant("later", status="scheduled", wake_at="2220-01-01")
    plant("sleeps", status="waiting", wake_at="2220-01-01")
    for workflow_id, code in (("later", "delay"), ("sleeps", "suspended")):
        (cause,) = client.workflows.explain(workflow_id).causes
        assert (cause.code, cause.until is not None) == (code, True)


def test_a_suspended_one_says_what_it_waits_for(client: Engine, plant: Callable[..., None], execute: Execute) -> None:
    """A message, an answer, a stream, another workflow, whose own causes come first."""
    plant("target", status="blocked")
    plant("w", status="waiting")
    waits = (
        ("w", "dbosflow/inbox/approval"),
        ("w", "dbosflow/token/create_token#0"),
        ("target", "out"),
        ("target", None),
        ("gone", None),
    )
    for number, (target, key) in enumerate(waits):
        execute("INSERT INTO dbosflow.waiter VALUES ('w', %s, %s, %s, 0, false)", str(number), target, key)
    found = client.workflows.explain("w")
    assert [(cause.workflow_id, cause.code) for cause in found.causes] == [
        ("target", "blocked"),
        ("w", "suspended"),
        ("w", "workflow"),
        ("w", "stream"),
        ("w", "workflow"),
        ("w", "message"),
        ("w", "answer"),
    ]
    said = str(found)
    for text in (
        "'gone' (which is not there)",
        "topic 'approval'",
        "'create_token#0'",
        "stream 'out', that of workflow 'target'",
    ):
        assert text in said


class RefusedError(Exception):
    """What the first attempt ends with."""


@step
async def writes_and_waits() -> None:
    await write_stream_async("progress", 1)
    await asyncio.to_thread(let_go.wait)


@step(max_attempts=5, interval=1000)
async def refused() -> None:
    raise RefusedError


@workflow
async def explained_grandchild() -> None:
    await sleep_async(10_000)


@workflow
async def explained_child() -> None:
    handle = await explained_grandchild.options(workflow_id="grandchild").start_async()
    await handle.result_async()


@workflow
async def explained_parent() -> None:
    handle = await explained_child.options(workflow_id="child").start_async()
    await handle.result_async()


@workflow
async def in_a_step() -> None:
    await writes_and_waits()


@workflow
async def between_attempts() -> None:
    await refused()


@contextmanager
def running(engine: Engine, target: Any, workflow_id: str) -> Iterator[None]:
    """A workflow that is cancelled at the end."""
    handle = engine.start(target.options(workflow_id=workflow_id))
    try:
        yield
    finally:
        let_go.set()
        handle.cancel()


def test_a_chain_begins_with_its_last_cause(engine: Engine) -> None:
    """The parent waits for its child, which waits for its own, which sleeps."""
    with running(engine, explained_parent, "parent"):
        eventually(lambda: "timer" in codes(engine.workflows.explain("parent")))
        found = engine.workflows.explain("parent")
    assert [(cause.workflow_id, cause.code) for cause in found.causes] == [
        ("grandchild", "running"),
        ("grandchild", "timer"),
        ("child", "running"),
        ("child", "child"),
        ("parent", "running"),
        ("parent", "child"),
    ]
    assert found.causes[3].related == ("grandchild",)
    lines = str(found).splitlines()
    assert lines[0] == "workflow 'parent' is running"
    assert lines[1].startswith("- 'grandchild': it runs in process")


@workflow
async def explained_item(_number: int) -> None:
    await sleep_async(10_000)


@workflow
async def explained_list() -> None:
    await map_workflow_async(explained_item, range(3), concurrency=2)


def test_children_for_the_items_of_a_list_are_named(engine: Engine) -> None:
    """Those that are under way."""
    with running(engine, explained_list, "list"):
        eventually(lambda: "child" in codes(engine.workflows.explain("list")))
        (cause,) = [one for one in engine.workflows.explain("list").causes if one.code == "child"]
    assert cause.related == ("list/explained_item#0+0", "list/explained_item#0+1")


def test_a_step_that_writes_is_seen(engine: Engine) -> None:
    let_go.clear()
    with running(engine, in_a_step, "w"):
        eventually(lambda: "step" in codes(engine.workflows.explain("w")))
        (cause,) = [one for one in engine.workflows.explain("w").causes if one.code == "step"]
    assert "'writes_and_waits#0' is in attempt 1.1" in cause.text


def test_a_failed_attempt_says_what_it_was(engine: Engine) -> None:
    with running(engine, between_attempts, "w"):
        eventually(lambda: "retry" in codes(engine.workflows.explain("w")))
        (cause,) = [one for one in engine.workflows.explain("w").causes if one.code == "retry"]
    assert "'refused#0' has failed once (RefusedError: )" in cause.text


def test_workers_say_what_they_serve(database_url: str, execute: Execute) -> None:
    """The queues, also those that are added and given up later, and the names of their workflows."""
    served = "SELECT queues, names FROM dbosflow.worker WHERE state = 'live'"
    with Engine(database_url) as engine:
        eventually(lambda: [queues for queues, _ in execute(served)] == [[""]])
        threading.Thread(target=engine.run_worker, args=("a", "b"), daemon=True).start()
        eventually(lambda: [queues for queues, _ in execute(served)] == [["", "a", "b"]])
        ((_, names),) = execute(served)
        assert {"explained_parent", "in_a_step"} <= set(names)


def test_a_limit_and_a_pause_of_the_queue_are_named(
    client: Engine, plant: Callable[..., None], add_worker: Callable[..., str]
) -> None:
    """With what would end the wait."""
    owner = add_worker("{q}", "{w}")
    client.queues.apply(Queue("q", concurrency=2))
    plant("first", status="running", worker_id=owner, slot="q", epoch=1)
    plant("third")
    assert codes(client.workflows.explain("third")) == ["slot"]
    plant("second", status="running", worker_id=owner, slot="q", epoch=1, queue="dbosflow/pinned/v1/q")
    explanation = client.workflows.explain("third")
    assert codes(explanation) == ["limit", "slot"]
    assert "2 workflows of its queue 'q' run, and its limit for all workers is 2" in str(explanation)
    client.queues.change("q", rate=Rate(1, per=1000))
    client.queues.change("q", rate=Rate(2, per=1000, burst=1))
    assert codes(client.workflows.explain("third")) == ["limit", "rate", "slot"]
    client.queues.pause("q", until=1000)
    (cause, *_) = client.workflows.explain("third").causes
    assert (cause.code, cause.frees) == ("paused", "`dbosflow queue resume q`")
    assert cause.until is not None


def test_the_rate_of_the_partition_is_named(
    client: Engine, plant: Callable[..., None], add_worker: Callable[..., str], execute: Callable[..., object]
) -> None:
    """With its key and the time; what has begun before does not wait for it."""
    add_worker("{q,q\x1fa}", "{w}")
    client.queues.apply(Queue("q", partition_rate=Rate(10, per=1000)))
    plant("of a", queue="q\x1fa", units=3)
    plant("of none", units=20)
    rows = (
        "INSERT INTO dbosflow.partition_rate SELECT 'q', k, now() + interval '1 hour', now() FROM unnest(%s::text[]) k"
    )
    execute(rows, ["a"])
    assert "rate" not in codes(client.workflows.explain("of none"))
    execute(rows, [""])
    for name, whose in (("of a", "of partition 'a'"), ("of none", "without a partition key")):
        (cause,) = [cause for cause in client.workflows.explain(name).causes if cause.code == "rate"]
        assert (
            f"the rate for each partition of its queue 'q' lets 10 in 1000 s {whose} begin, and no more" in cause.text
        )
        assert cause.until is not None
    execute("UPDATE dbosflow.workflow SET epoch = 1")
    assert "rate" not in codes(client.workflows.explain("of a"))


def test_the_bucket_of_the_queue_is_named(
    client: Engine, plant: Callable[..., None], add_worker: Callable[..., str]
) -> None:
    """For whoever looks at one queue does not see what another one has taken."""
    add_worker("{q}", "{w}")
    client.queues.apply(Queue("q", rate=Rate(10, per=1000, bucket="api")))
    plant("small")
    plant("large", units=20)
    assert codes(client.workflows.explain("small")) == ["slot"]
    client.queues.apply(Queue("other", rate=Rate(5, per=1000, bucket="api")))
    explanation = client.workflows.explain("large")
    assert codes(explanation) == ["rate", "slot"]
    assert (
        "bucket 'api', which its queue 'q' draws on, lets 5 in 1000 s begin, and no more now; it has 20 units"
        in str(explanation)
    )
    first, second = (client.workflows.explain(name).causes[0].until for name in ("small", "large"))
    assert first is not None
    assert second is not None
    assert 790 < (second - first).total_seconds() < 810
    client.queues.pause(bucket="api", until=1000)
    (cause, *_) = client.workflows.explain("small").causes
    assert (cause.code, cause.frees) == ("paused", "`dbosflow queue resume --bucket api`")
    assert "bucket 'api', whose rate its queue 'q' has, is paused until" in cause.text
