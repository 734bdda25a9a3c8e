"""Deduplicated starts: of each key of a queue there is one workflow that has not ended, and a policy says which."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dbosflow import (
    Engine,
    Message,
    WorkflowStatus,
    continue_as_new,
    map_workflow_async,
    recv_async,
    step,
    workflow,
)
from dbosflow.errors import (
    ConfigurationError,
    DuplicateWorkflowError,
    InWorkflowError,
    WorkflowCancelledError,
    WorkflowConflictError,
)
from tests.behaviour.gate import Gate
from tests.behaviour.ledger import note, noted
from tests.behaviour.tables import disorder, rows
from tests.support import eventually

PATIENCE = 60.0
DAY = timedelta(days=1)
ENDS = Gate()
OWN: list[Engine] = []
"""The engine of a step that starts."""


@workflow
async def deduplicated(value: Any) -> Any:
    """Runs until it is told to end."""
    return [value, await recv_async("go")]


@workflow
async def slow_to_end(number: int) -> None:
    """Ends when a gate is opened, after it was cancelled."""
    note(f"begins {number}")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        note(f"is cancelled {number}")
        await ENDS.passed()
        note(f"ends {number}")
        raise


@workflow
async def fails_at_once() -> None:
    msg = "as it should"
    raise ValueError(msg)


@workflow
async def continued_with_key(number: int) -> int:
    note(str(number))
    if number == 0:
        continue_as_new(1)
    await recv_async("go")
    return number


@step
async def starting_step() -> str:
    return (await OWN[-1].start_async(deduplicated.options(dedup_key="k"), 1)).workflow_id


@workflow
async def starts_with_key(way: str) -> str:
    spec = deduplicated.options(dedup_key="k")
    if way == "map":
        await map_workflow_async(spec, [1])
    if way == "step":
        return await starting_step()
    return (await spec.start_async(1)).workflow_id


@workflow
def another_function(value: Any) -> Any:
    return value


def end(engine: Engine, workflow_id: str) -> Any:
    engine.send(workflow_id, "end", "go")
    return engine.handle(workflow_id).result(timeout=PATIENCE)


def input_of(url: str, workflow_id: str) -> Any:
    ((found,),) = rows(url, "SELECT input->'value' FROM dbosflow.workflow WHERE id = %s", workflow_id)
    return found


@pytest.mark.parametrize("queue", [None, "q"])
def test_a_second_start_finds_the_first_until_that_has_ended(engine: Engine, client: Engine, queue: str | None) -> None:
    spec = deduplicated.options(queue=queue, dedup_key="k")
    starter = engine if queue is None else client
    first = starter.start(spec, 1)
    assert starter.start(spec, 2).workflow_id == first.workflow_id
    assert starter.start(deduplicated.options(queue=queue, dedup_key="other"), 2).workflow_id != first.workflow_id
    assert starter.start(deduplicated.options(queue="another", dedup_key="k"), 2).workflow_id != first.workflow_id
    if queue is None:
        assert end(engine, first.workflow_id) == [1, "end"]
    else:
        first.cancel()
    assert starter.start(spec, 3).workflow_id != first.workflow_id


def test_raise_names_the_workflow_that_has_the_key(client: Engine) -> None:
    spec = deduplicated.options(queue="q", dedup_key="k", on_duplicate="raise")
    first = client.start(spec, 1)
    with pytest.raises(DuplicateWorkflowError, match=first.workflow_id) as caught:
        client.start(spec, 2)
    assert caught.value.workflow_id == first.workflow_id
    first.cancel()
    client.start(spec, 3)


def test_an_id_decides_before_the_key(client: Engine) -> None:
    """A start is repeated by its id, also when its execution has ended, or the key is another workflow's."""
    spec = deduplicated.options(queue="q", dedup_key="k", workflow_id="w")
    client.start(spec, 1).cancel()
    assert client.start(spec, 1).status() is WorkflowStatus.CANCELLED
    other = client.start(deduplicated.options(queue="q", dedup_key="k"), 2)
    assert other.workflow_id != "w"
    assert client.start(spec, 1).workflow_id == "w"
    assert client.start(deduplicated.options(queue="q", dedup_key="k", workflow_id="x"), 3).workflow_id == (
        other.workflow_id
    )


def test_a_replaced_start_keeps_its_id_and_gets_all_that_is_new(client: Engine, database_url: str) -> None:
    def spec(**options: Any) -> Any:
        return deduplicated.options(queue="q", dedup_key="k", on_duplicate="replace", **options)

    first = client.start(spec(delay=DAY, attributes={"a": 1, "b": 1}, priority=3, timeout=60), 1)
    assert first.status() is WorkflowStatus.SCHEDULED
    second = client.start(spec(attributes={"b": 2, "c": 2}), 2)
    assert second.workflow_id == first.workflow_id
    assert second.status() is WorkflowStatus.QUEUED
    assert input_of(database_url, first.workflow_id) == 2
    query = "SELECT priority, deadline_at, wake_at FROM dbosflow.workflow"
    assert rows(database_url, query) == [(0, None, None)]
    assert first.info().attributes == {"b": 2, "c": 2}


def test_a_workflow_that_has_begun_goes_on_beside_the_one_that_replaces_it(engine: Engine) -> None:
    spec = deduplicated.options(dedup_key="k", on_duplicate="replace")
    first = engine.start(spec, 1)
    assert eventually(lambda: first.status() is WorkflowStatus.RUNNING)
    second = engine.start(spec, 2)
    assert second.workflow_id != first.workflow_id
    assert end(engine, first.workflow_id) == [1, "end"]
    assert engine.start(deduplicated.options(dedup_key="k"), 3).workflow_id == second.workflow_id
    assert end(engine, second.workflow_id) == [2, "end"]


def test_a_debounced_start_is_put_off_but_not_for_ever(client: Engine, database_url: str) -> None:
    """Each start puts it off; at the latest it is due so long after the first one."""

    def due_after() -> float:
        query = "SELECT extract(epoch FROM wake_at - created_at)::float FROM dbosflow.workflow"
        ((seconds,),) = rows(database_url, query)
        return float(seconds)

    def start(delay: float, within: float | None) -> None:
        options: Any = {"queue": "q", "dedup_key": "k", "on_duplicate": "replace", "delay": delay}
        client.start(deduplicated.options(**options, replace_within=within), delay)

    start(60, None)
    assert due_after() == 60
    start(600, 3600)
    assert 600 <= due_after() < 700
    start(5000, 3600)
    assert due_after() == 3600
    start(30, 3600)
    assert 30 <= due_after() < 130
    start(5000, 0.001)
    assert rows(database_url, "SELECT status, input->'value' FROM dbosflow.workflow") == [("queued", 5000)]


def test_a_debounced_start_runs_once_with_its_last_arguments(engine: Engine) -> None:
    """Without a further start it begins when its time has come, and a start after that is a new one."""
    spec = another_function.options(dedup_key="k", on_duplicate="replace", delay=3600)
    soon = another_function.options(dedup_key="k", on_duplicate="replace", delay=0.05)
    handles = [*(engine.start(spec, number) for number in range(4)), engine.start(soon, 4)]
    assert {one.workflow_id for one in handles} == {handles[0].workflow_id}
    assert handles[0].result(timeout=PATIENCE) == 4
    assert engine.start(spec, 5).workflow_id != handles[0].workflow_id


def test_one_runs_and_one_waits_with_cancel_running(engine: Engine, database_url: str) -> None:
    """The one that runs is cancelled, the next begins when that is over, and a third changes the one that waits."""
    spec = slow_to_end.options(dedup_key="k", on_duplicate="cancel_running")
    first = engine.start(spec, 1)
    assert eventually(lambda: noted() == ["begins 1"])
    second = engine.start(spec, 2)
    assert eventually(lambda: noted() == ["begins 1", "is cancelled 1"])
    third = engine.start(spec, 3)
    assert second.workflow_id == third.workflow_id != first.workflow_id
    assert second.status() is WorkflowStatus.WAITING
    assert first.workflow_id in str(engine.workflows.explain(second.workflow_id))
    ENDS.open()
    with pytest.raises(WorkflowCancelledError, match="dedup_key"):
        first.result(timeout=PATIENCE)
    assert eventually(lambda: noted()[3:] == ["begins 3"])
    assert noted()[2] == "ends 1"
    assert second.cancel().outcome == "requested"
    ENDS.open()
    assert eventually(lambda: second.status() is WorkflowStatus.CANCELLED)
    assert rows(database_url, "SELECT count(*) FROM dbosflow.waiter") == [(0,)]
    assert disorder(database_url) == []


def test_a_hint_that_is_about_no_end_does_not_begin_the_one_that_waits(engine: Engine) -> None:
    """A workflow's status changes in other ways, too, and each change is announced."""
    spec = slow_to_end.options(dedup_key="k", on_duplicate="cancel_running")
    first = engine.start(spec, 1)
    assert eventually(lambda: noted() == ["begins 1"])
    second = engine.start(spec, 2)
    for _ in range(3):
        assert first.cancel().outcome == "requested"  # which is announced each time
    assert eventually(lambda: noted() == ["begins 1", "is cancelled 1"])
    assert second.status() is WorkflowStatus.WAITING
    assert second.cancel().outcome == "cancelled"
    ENDS.open()
    with pytest.raises(WorkflowCancelledError):
        first.result(timeout=PATIENCE)
    assert engine.start(spec, 3).workflow_id not in {first.workflow_id, second.workflow_id}


def test_what_has_ended_badly_or_is_removed_frees_the_key(engine: Engine, client: Engine, database_url: str) -> None:
    """However it ends: failed, timed out without a worker, deleted. A blocked one holds it."""
    failing = fails_at_once.options(dedup_key="k")
    first = engine.start(failing)
    assert eventually(lambda: first.status() is WorkflowStatus.FAILED)
    second = engine.start(failing)
    assert second.workflow_id != first.workflow_id
    assert eventually(lambda: second.status() is WorkflowStatus.FAILED)
    assert [one.outcome for one in engine.workflows.delete([first.workflow_id, second.workflow_id])] == ["deleted"] * 2
    assert rows(database_url, "SELECT count(*) FROM dbosflow.dedup") == [(0,)]
    timed = client.start(deduplicated.options(queue="q", dedup_key="t", timeout=0.01), 1)
    assert eventually(lambda: timed.status() is WorkflowStatus.FAILED)
    assert client.start(deduplicated.options(queue="q", dedup_key="t"), 2).workflow_id != timed.workflow_id
    blocked = client.start(deduplicated.options(queue="q", dedup_key="b"), 1)
    rows(database_url, "UPDATE dbosflow.workflow SET status = 'blocked' WHERE id = %s RETURNING 1", blocked.workflow_id)
    assert client.start(deduplicated.options(queue="q", dedup_key="b"), 2).workflow_id == blocked.workflow_id


def test_copies_of_a_workflow_have_no_key(engine: Engine) -> None:
    """Neither a fork nor a retry: the original may hold it, or another one by now."""
    spec = fails_at_once.options(dedup_key="k")
    first = engine.start(spec)
    assert eventually(lambda: first.status() is WorkflowStatus.FAILED)
    fork = engine.workflows.fork(first.workflow_id, from_turn=0, queue="nobody")
    retried = engine.workflows.retry(first.workflow_id, queue="nobody")
    copies = {fork.handle.workflow_id, retried.handle.workflow_id}
    assert engine.start(spec).workflow_id not in copies | {first.workflow_id}


def test_a_workflow_that_is_continued_as_new_holds_its_key(engine: Engine) -> None:
    handle = engine.start(continued_with_key.options(dedup_key="k"), 0)
    assert eventually(lambda: noted() == ["0", "1"])
    assert engine.start(continued_with_key.options(dedup_key="k"), 5).workflow_id == handle.workflow_id
    assert end(engine, handle.workflow_id) == 1


def test_a_key_belongs_to_one_function(client: Engine) -> None:
    """Whoever asks for another one would get a handle of the wrong type."""
    client.start(deduplicated.options(queue="q", dedup_key="k"), 1)
    for policy in ("existing", "replace", "cancel_running"):
        with pytest.raises(WorkflowConflictError, match="take another key"):
            client.start(another_function.options(queue="q", dedup_key="k", on_duplicate=policy), 1)
    with pytest.raises(DuplicateWorkflowError):
        client.start(another_function.options(queue="q", dedup_key="k", on_duplicate="raise"), 1)


def test_versions_share_the_keys_of_a_queue(client: Engine) -> None:
    """A pinned workflow and one that is not are of one queue for whoever starts them."""
    first = client.start(deduplicated.options(queue="q", dedup_key="k", pin_version="v1"), 1)
    assert client.start(deduplicated.options(queue="q", dedup_key="k"), 1).workflow_id == first.workflow_id


def test_a_start_by_name_has_a_key(client: Engine) -> None:
    options: Any = {"queue": "q", "dedup_key": "k", "on_duplicate": "replace", "delay": DAY, "replace_within": DAY}
    first = client.workflows.start("nobody_has_this_code", {"n": 1}, **options)
    assert client.workflows.start("nobody_has_this_code", {"n": 2}, **options).workflow_id == first.workflow_id


def test_many_that_start_with_one_key_make_one_workflow(database_url: str) -> None:
    """From whichever engine, with whichever policy that finds it waiting."""

    async def main() -> set[str]:
        async with (
            Engine(database_url, executes=False) as one,
            Engine(database_url, executes=False) as two,
        ):
            starts = [
                engine.start_async(deduplicated.options(queue="q", dedup_key=f"k{key}", on_duplicate=policy), number)
                for number in range(10)
                for key in ((0, 1, 2) if number % 2 else (2, 1, 0))
                for engine in (one, two)
                for policy in ("existing", "replace", "cancel_running")
            ]
            return {handle.workflow_id for handle in await asyncio.gather(*starts)}

    assert len(asyncio.run(main())) == 3
    assert rows(database_url, "SELECT count(*) FROM dbosflow.workflow") == [(3,)]


def test_a_body_starts_no_child_with_a_key(engine: Engine) -> None:
    """Its parent's record decides about a child; in a step the engine starts what is no child."""
    for way in ("start", "map"):
        with pytest.raises(InWorkflowError, match="in a step"):
            engine.run(starts_with_key, way)
    OWN.append(engine)
    assert engine.run(starts_with_key, "step") == engine.start(deduplicated.options(dedup_key="k"), 1).workflow_id


def test_wrong_options_are_refused(client: Engine) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"dedup_key": ""}, "1 to 512 bytes"),
        ({"dedup_key": "k", "on_duplicate": "ignore"}, "'existing', 'raise', 'replace', 'cancel_running'"),
        ({"on_duplicate": "raise"}, "add dedup_key"),
        ({"replace_within": 5}, "add dedup_key"),
        ({"dedup_key": "k", "replace_within": 5, "delay": 1}, "on_duplicate='replace'"),
        ({"dedup_key": "k", "on_duplicate": "replace", "replace_within": 5}, "with a delay"),
        ({"dedup_key": "k", "on_duplicate": "replace", "delay": 1, "replace_within": 0}, "above 0"),
        ({"dedup_key": "k", "on_duplicate": "cancel_running", "delay": 1}, "leave out delay"),
        (
            {"dedup_key": "k", "on_duplicate": "cancel_running", "run_at": datetime(2100, 1, 1, tzinfo=UTC)},
            "leave out delay",
        ),
    ]
    for options, message in wrong:
        with pytest.raises(ConfigurationError, match=message):
            deduplicated.options(**options)
    with pytest.raises(ConfigurationError, match="takes no message"):
        client.start(deduplicated.options(dedup_key="k"), 1, message=Message("go", 1))
