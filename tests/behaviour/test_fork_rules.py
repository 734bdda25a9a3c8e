"""What a fork copies and what not, what it runs again, and what it refuses."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from dbosflow import (
    Engine,
    Stream,
    compensate,
    create_token_async,
    current,
    for_each_async,
    map_workflow_async,
    read_input_async,
    recv_async,
    send_async,
    set_event_async,
    step,
    workflow,
    write_stream_async,
)
from dbosflow.errors import (
    ConfigurationError,
    OutdatedWorkersError,
    StreamTruncatedError,
    WorkflowConflictError,
    WorkflowForkError,
    WorkflowNotFoundError,
    WorkflowTimeoutError,
)
from tests.behaviour.forks import PATIENCE, QUEUE, committed, last_turn, turn_of, working
from tests.behaviour.tables import disorder, rows
from tests.support import eventually_async

ran: Counter[str] = Counter()
"""How often each step body has run in each workflow: by id and key."""
broken: set[str] = set()
"""The steps that fail now."""


def runs() -> None:
    """Counts a body."""
    here = current()
    ran[f"{here.workflow_id} {here.step_key}"] += 1


@step
async def ruled_value(number: int) -> str:
    runs()
    return f"old{number}"


@step
async def ruled_join(parts: list[str]) -> str:
    runs()
    return "+".join(parts)


@workflow
async def ruled_list() -> list[str]:
    """A stream of what steps return, in bits that a compaction joins."""
    found = []
    for number in range(12):
        found.append(await ruled_value(number))
        await write_stream_async("rows", found[-1])
    return found


@workflow
async def ruled_pair() -> str:
    """Two steps at a time, whose outcomes mostly go on record together, and one behind them."""
    parts = await asyncio.gather(asyncio.create_task(ruled_value(1)), asyncio.create_task(ruled_value(2)))
    return await ruled_join(list(parts))


@step(max_attempts=3, interval=0)
async def ruled_fragile() -> str:
    runs()
    await write_stream_async("tokens", "t")
    if "fragile" in broken:
        msg = "fragile"
        raise ConnectionError(msg)
    return "whole"


@workflow
async def ruled_failing(caught: int = 0) -> str:
    """Fails by a step; so many of its failures are handled."""
    await ruled_value(0)
    for _ in range(caught):
        try:
            await ruled_fragile()
        except ConnectionError:
            await ruled_value(1)
    return await ruled_fragile()


@workflow
async def ruled_child(sleepy: bool) -> str:  # noqa: FBT001 (a workflow's argument)
    await write_stream_async("child", "here")
    if sleepy and "sleepy" in broken:
        await asyncio.sleep(3600)
    return await ruled_fragile()


@workflow
async def ruled_parent(child_id: str | None = None, sleepy: bool = False) -> str:  # noqa: FBT001, FBT002 (as above)
    await ruled_value(0)
    child = ruled_child if child_id is None else ruled_child.options(workflow_id=child_id)
    handle = await child.start_async(sleepy)
    await ruled_value(1)
    return await handle.result_async()


@workflow
async def ruled_mapped_child(number: int) -> str:
    if number == 2:
        return await ruled_fragile()
    return await ruled_value(number)


@workflow
async def ruled_mapping() -> list[str]:
    await ruled_value(0)
    return await map_workflow_async(ruled_mapped_child, [1, 2, 3])


@workflow
async def ruled_named() -> str:
    """Names others after itself, and sends itself a message."""
    own = current().workflow_id
    handle = await ruled_mapped_child.options(workflow_id=f"{own}-child").start_async(1)
    await send_async(own, "to myself")
    parts = [await handle.result_async(), await recv_async(), str(await handle.status_async())]
    return await ruled_join(parts)


@workflow
async def ruled_approved() -> str:
    first, second = await create_token_async(), await create_token_async()
    await set_event_async("tokens", [first.id, second.id])
    found = await first.wait_async(type=str)
    return await ruled_join([found, await second.wait_async(type=str)])


@step
async def ruled_undo() -> None:
    runs()


@workflow(compensates=True)
async def ruled_saga() -> str:
    await ruled_value(0)
    compensate(ruled_undo)
    return await ruled_fragile()


@step(max_attempts=1000, interval=3600)
async def ruled_retrying() -> str:
    raise ConnectionError


@workflow
async def ruled_stubborn() -> str:
    return await ruled_retrying()


@step
async def ruled_resuming() -> int:
    writer = Stream[int, None]("resumed").writer(on_retry="resume")
    for number in range(len(await writer.emitted_async()), 4):
        await writer.write_async(number)
        if number == 1 and "resuming" in broken:
            await asyncio.sleep(3600)
    return 4


@step
async def ruled_flushing(mode: Any) -> int:
    runs()
    async with Stream[int, None]("flushed").writer(on_retry=mode) as writer:
        for number in range(4):
            await writer.write_async(number)
            await writer.flush_async()
    return 4


@workflow
async def ruled_durable(mode: str) -> int:
    await ruled_value(0)
    return await ruled_flushing(mode)


@workflow
async def ruled_interrupted() -> int:
    await ruled_value(0)
    return await ruled_resuming()


@step
async def ruled_refusing(number: int) -> int:
    raise ValueError(number)


@workflow(inputs=["work"])
async def ruled_letters() -> int:
    done = await for_each_async("work", ruled_refusing, on_error="dead_letter")
    for number in range(8):
        await write_stream_async("z", await ruled_value(number))
    return int(done.failed)


@pytest.fixture(autouse=True)
def all_is_well() -> None:
    ran.clear()
    broken.clear()


async def started(engine: Engine, target: Any, *args: Any) -> None:
    """Starts the original on a worker."""
    await engine.start_async(target.options(workflow_id="o", queue=QUEUE), *args)


async def ended(engine: Engine, target: Any, *args: Any) -> Any:
    """The original's end."""
    await started(engine, target, *args)
    try:
        return await engine.handle("o").result_async(timeout=PATIENCE)
    except Exception as error:  # noqa: BLE001 (whatever it ends with)
        return error


async def result(fork: Any) -> Any:
    return await fork.handle.result_async(timeout=PATIENCE)


async def joined(url: str, key: str) -> None:
    """Has the streams of what has ended compacted, up to this one in the order of their keys."""
    count = "SELECT count(*) FROM dbosflow.stream_block WHERE workflow_id = 'o' AND key = %s"
    before = rows(url, count, key)
    async with Engine(url, compact_every=0.05):
        await eventually_async(lambda: rows(url, count, key) < before)


@workflow(inputs=["work"])
async def ruled_reading() -> list[Any]:
    return [value async for value in read_input_async("work")]


def nine_days_pass(url: str) -> None:
    """Since everything was started."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "UPDATE dbosflow.workflow"
            " SET created_at = created_at - interval '9 d', deadline_at = deadline_at - interval '9 d'"
        )


def test_a_retry_of_what_was_too_late_before_it_ran_has_open_inputs(client: Engine, database_url: str) -> None:
    """The end by the deadline closes them as failed: what was written before stays, and more may come."""
    handle = client.start(ruled_reading.options(workflow_id="o", queue=QUEUE, timeout=3600))
    client.write_stream("o", "work", 1)
    nine_days_pass(database_url)
    with Engine(database_url), pytest.raises(WorkflowTimeoutError):
        handle.result(timeout=PATIENCE)
    client.workflows.retry("o", workflow_id="f")
    assert client.write_stream("f", "work", 2) == 1


def test_a_retry_after_a_moment_that_was_the_deadline_has_as_much_time_again(client: Engine, database_url: str) -> None:
    deadline = datetime.now(UTC) + timedelta(days=1)
    client.start(ruled_list.options(workflow_id="o", queue=QUEUE, deadline=deadline))
    nine_days_pass(database_url)
    with Engine(database_url), pytest.raises(WorkflowTimeoutError):
        client.handle("o").result(timeout=PATIENCE)
    client.workflows.retry("o", workflow_id="f")
    spans = dict(rows(database_url, "SELECT id, deadline_at - created_at FROM dbosflow.workflow"))
    assert spans["f"] == spans["o"] > timedelta(hours=23)


def test_a_workflow_that_was_too_late_when_it_was_started_has_no_time_for_a_retry(client: Engine) -> None:
    past = datetime.now(UTC) - timedelta(minutes=1)
    client.start(ruled_list.options(workflow_id="o", queue=QUEUE, deadline=past))
    with Engine(client.database_url), pytest.raises(WorkflowTimeoutError):
        client.handle("o").result(timeout=PATIENCE)
    with pytest.raises(WorkflowForkError, match="had passed before it was started"):
        client.workflows.retry("o", workflow_id="f")
    with pytest.raises(WorkflowForkError, match="had passed before it was started"):
        client.workflows.fork("o", from_turn=0, workflow_id="f")
    with pytest.raises(WorkflowNotFoundError):
        client.handle("f").status()


# -- what runs again -------------------------------------------------------------------------------------------------


async def test_a_fork_from_a_step_runs_that_and_what_follows(database_url: str) -> None:
    async with working(database_url) as engine:
        right = await ended(engine, ruled_list)
        fork = await engine.workflows.fork_async("o", from_step="ruled_value#9", workflow_id="f")
        assert await result(fork) == right
        assert fork.turn == turn_of(database_url, "o", "ruled_value#9")
        info = await fork.handle.info_async()
    assert (info.forked_from, info.forked_turn) == ("o", fork.turn)
    assert {key for key in ran if key.startswith("f ")} == {f"f ruled_value#{number}" for number in (9, 10, 11)}
    assert disorder(database_url) == []


@pytest.mark.parametrize("compacted", [False, True])
async def test_a_step_with_another_output_does_not_run(database_url: str, *, compacted: bool) -> None:
    """Nothing of the old output is left, also where its block was joined with those of other turns."""
    async with working(database_url) as engine:
        await ended(engine, ruled_list)
    if compacted:
        await joined(database_url, "rows")
    async with working(database_url) as engine:
        fork = await engine.workflows.fork_async("o", from_step="ruled_value#5", output="NEW", workflow_id="f")
        right = [f"old{number}" if number != 5 else "NEW" for number in range(12)]
        assert await result(fork) == right
        assert await committed(engine, "f", "rows") == right
        assert await committed(engine, "o", "rows") == [f"old{number}" for number in range(12)]
    assert ran["f ruled_value#5"] == 0
    assert disorder(database_url) == []


async def test_a_fork_says_what_else_runs_again(database_url: str) -> None:
    """What went on record in the same turn, and only that."""
    async with working(database_url) as engine:
        await ended(engine, ruled_pair)
        for branch in (1, 2):
            key = f"ruled_value#{branch - 1}"
            keys = [record.key for record in await engine.list_steps_async("o")]
            key = keys[branch - 1]
            beside = [
                one for one in keys if one != key and turn_of(database_url, "o", one) == turn_of(database_url, "o", key)
            ]
            fork = await engine.workflows.fork_async("o", from_step=key, workflow_id=f"f{branch}")
            assert fork.again == tuple(beside)
            assert await result(fork) == "old1+old2"


async def test_a_step_gets_all_its_attempts_again(database_url: str) -> None:
    broken.add("fragile")
    async with working(database_url) as engine:
        assert isinstance(await ended(engine, ruled_failing), ConnectionError)
        broken.clear()
        assert await result(await engine.workflows.fork_async("o", from_step="ruled_fragile#0")) == "whole"
        broken.add("fragile")
        fork = await engine.workflows.fork_async("o", from_step="ruled_fragile#0", workflow_id="again")
        with pytest.raises(ConnectionError):
            await result(fork)
    assert ran["again ruled_fragile#0"] == 3
    assert disorder(database_url) == []


async def test_a_fork_of_a_fork_goes_on_from_there(database_url: str) -> None:
    async with working(database_url) as engine:
        await ended(engine, ruled_list)
        first = await engine.workflows.fork_async("o", from_step="ruled_value#3", output="three", workflow_id="f")
        await result(first)
        for number in (1, 8):
            second = await engine.workflows.fork_async("f", from_step=f"ruled_value#{number}", output="x")
            right = [f"old{one}" for one in range(12)]
            if number > 3:
                right[3] = "three"
            right[number] = "x"
            assert await result(second) == right
            assert await committed(engine, second.handle.workflow_id, "rows") == right
    assert disorder(database_url) == []


async def test_a_fork_says_which_tokens_of_it_are_to_be_answered(database_url: str) -> None:
    """Those that were answered are not among them; the old ids are the original's."""
    async with working(database_url) as engine:
        await started(engine, ruled_approved)
        first, second = await engine.get_event_async("o", "tokens", timeout=PATIENCE)
        await engine.resolve_async(first, "yes")
        answered = "SELECT FROM dbosflow.step WHERE kind = 'answer'"
        await eventually_async(lambda: rows(database_url, answered))
        fork = await engine.workflows.fork_async("o", from_turn=last_turn(database_url, "o") + 1)
        (token,) = fork.tokens
        assert token != second
        assert token not in repr(fork)
        await engine.resolve_async(token, "no")
        await engine.resolve_async(second, "later")
        assert [await result(fork), await engine.handle("o").result_async(timeout=PATIENCE)] == ["yes+no", "yes+later"]


async def test_a_fork_leaves_out_the_ends_of_streams(database_url: str) -> None:
    """They came with the end of the workflow, and the fork goes on."""
    async with working(database_url) as engine:
        await ended(engine, ruled_list)
        await engine.workflows.fork_async("o", from_turn=12, workflow_id="f", queue="nobody's")
        assert (await engine.streams.info_async("o", "rows")).state == "complete"
        found = await engine.streams.info_async("f", "rows")
        assert (found.state, found.tail, found.values) == ("open", 12, 12)


async def test_a_workflow_that_names_others_after_itself_is_forked(database_url: str) -> None:
    """Copied records name those of the original, and are taken as they are."""
    async with working(database_url) as engine:
        right = await ended(engine, ruled_named)
        for turn in range(last_turn(database_url, "o") + 2):
            assert await result(await engine.workflows.fork_async("o", from_turn=turn)) == right, turn
    assert disorder(database_url) == []


@pytest.mark.parametrize("mode", ["resume", "rollback"])
async def test_what_a_step_has_written_is_taken_back_if_it_gets_an_output(database_url: str, mode: str) -> None:
    """At once, so that readers of what stays need not wait for the end of the fork."""
    async with working(database_url) as engine:
        await ended(engine, ruled_durable, mode)
        fork = await engine.workflows.fork_async(
            "o", from_step="ruled_flushing#0", output=7, workflow_id="f", queue="-"
        )
        kinds = """SELECT kind FROM dbosflow.stream_block WHERE workflow_id = 'f' ORDER BY "offset" DESC"""
        assert rows(database_url, kinds)[0] == ("rollback",)
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("UPDATE dbosflow.workflow SET queue = %s WHERE id = 'f'", (QUEUE,))
        await result(await engine.workflows.fork_async("o", from_turn=0))  # which wakes a worker
        assert await result(fork) == 7
        assert await committed(engine, "f", "flushed") == []
        assert len(await committed(engine, "o", "flushed")) == 4
    assert ran["f ruled_flushing#0"] == 0
    assert disorder(database_url) == []


async def test_a_step_without_any_record_cannot_be_forked_from(database_url: str) -> None:
    broken.add("resuming")
    async with working(database_url) as engine:
        await started(engine, ruled_interrupted)
        await eventually_async(lambda: rows(database_url, "SELECT FROM dbosflow.stream_block WHERE key = 'resumed'"))
        with pytest.raises(WorkflowForkError, match="ruled_resuming#0"):
            await engine.workflows.fork_async("o", from_step="ruled_resuming#0", output=7)
        await engine.handle("o").cancel_async()


async def test_a_step_that_only_failed_so_far_takes_an_output(database_url: str) -> None:
    """A workflow that retries for ever is forked while it runs, and goes on without the step."""
    broken.add("fragile")
    async with working(database_url) as engine:
        await started(engine, ruled_stubborn)
        failed = "SELECT FROM dbosflow.step WHERE kind = 'attempt'"
        await eventually_async(lambda: rows(database_url, failed))
        fork = await engine.workflows.fork_async("o", from_step="ruled_retrying#0", output="given")
        assert await result(fork) == "given"
        assert rows(database_url, failed + " AND workflow_id <> 'o'") == []
        await engine.handle("o").cancel_async()


async def test_a_step_that_was_cancelled_goes_on_behind_what_it_had_written(database_url: str) -> None:
    """The end has rolled it back; in the fork it is undecided again, as after a crash."""
    broken.add("resuming")
    async with working(database_url) as engine:
        await started(engine, ruled_interrupted)
        await eventually_async(lambda: rows(database_url, "SELECT FROM dbosflow.stream_block WHERE key = 'resumed'"))
        await engine.handle("o").cancel_async()
        with pytest.raises(Exception, match="cancelled"):
            await engine.handle("o").result_async(timeout=PATIENCE)
        broken.clear()
        fork = await engine.workflows.retry_async("o")
        assert await result(fork) == 4
        assert await committed(engine, fork.handle.workflow_id, "resumed") == [0, 1, 2, 3]
    assert disorder(database_url) == []


async def test_dead_letters_are_in_the_fork_as_often_as_their_items(database_url: str) -> None:
    """Their items are on record, so nothing writes them again: no compaction may join them over turns."""
    async with working(database_url) as engine:
        await started(engine, ruled_letters)
        for number in range(12):
            await engine.write_stream_async("o", "work", number)
        await engine.close_stream_async("o", "work")
        assert await engine.handle("o").result_async(timeout=PATIENCE) == 12
    await joined(database_url, "z")
    async with working(database_url) as engine:
        for turn in range(last_turn(database_url, "o") + 2):
            fork = await engine.workflows.fork_async("o", from_turn=turn)
            assert await result(fork) == 12
            letters = await committed(engine, fork.handle.workflow_id, "ruled_refusing.dead")
            assert sorted(letter["offset"] for letter in letters) == list(range(12)), turn


# -- retries ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("caught", [0, 2])
async def test_a_retry_begins_before_the_failure_that_was_not_handled(database_url: str, caught: int) -> None:
    broken.add("fragile")
    async with working(database_url) as engine:
        assert isinstance(await ended(engine, ruled_failing, caught), ConnectionError)
        fork = await engine.workflows.retry_async("o", workflow_id="still broken")
        with pytest.raises(ConnectionError):
            await result(fork)
        broken.clear()
        fork = await engine.workflows.retry_async("o", workflow_id="r")
        assert fork.turn == turn_of(database_url, "o", f"ruled_fragile#{caught}")
        assert await result(fork) == "whole"
        assert await committed(engine, "r", "tokens") == ["t"]
    assert ran[f"still broken ruled_fragile#{caught}"] == 3
    assert [key for key in ran if key.startswith("r ")] == [f"r ruled_fragile#{caught}"]
    assert disorder(database_url) == []


async def test_a_retry_starts_a_new_child_for_one_that_failed(database_url: str) -> None:
    broken.add("fragile")
    async with working(database_url) as engine:
        assert isinstance(await ended(engine, ruled_parent), ConnectionError)
        broken.clear()
        fork = await engine.workflows.retry_async("o", workflow_id="r")
        assert await result(fork) == "whole"
        assert fork.turn == turn_of(database_url, "o", "ruled_child#0")
        again = await engine.workflows.fork_async("r", from_step="ruled_value#1")
        assert await result(again) == "whole", "the child of a fork is shared with a fork of that"
    assert [one for (one,) in rows(database_url, "SELECT id FROM dbosflow.workflow WHERE parent_id = 'r'")] == [
        "r/ruled_child#0"
    ]


async def test_a_retry_starts_a_new_child_for_one_that_was_cancelled_with_its_parent(database_url: str) -> None:
    broken.add("sleepy")
    async with working(database_url) as engine:
        await started(engine, ruled_parent, None, True)
        await eventually_async(lambda: ran["o ruled_value#1"] == 1)
        await engine.handle("o").cancel_async()
        for one in ("o", "o/ruled_child#0"):
            with pytest.raises(Exception, match="cancelled"):
                await engine.handle(one).result_async(timeout=PATIENCE)
        broken.clear()
        assert await result(await engine.workflows.retry_async("o")) == "whole"


async def test_a_retry_starts_new_children_for_those_of_a_map_that_failed(database_url: str) -> None:
    broken.add("fragile")
    async with working(database_url) as engine:
        assert isinstance(await ended(engine, ruled_mapping), ConnectionError)
        broken.clear()
        fork = await engine.workflows.retry_async("o", workflow_id="r")
        assert await result(fork) == ["old1", "whole", "old3"]
        assert fork.turn == turn_of(database_url, "o", "ruled_mapped_child#0/1")
        for turn in range(last_turn(database_url, "r") + 2):
            again = await engine.workflows.fork_async("r", from_turn=turn)
            assert await result(again) == ["old1", "whole", "old3"], turn
    assert disorder(database_url) == []


async def test_a_child_under_a_given_id_is_not_retried(database_url: str) -> None:
    broken.add("fragile")
    async with working(database_url) as engine:
        assert isinstance(await ended(engine, ruled_parent, "mine"), ConnectionError)
        with pytest.raises(WorkflowForkError, match="'mine' is failed, and has a given id"):
            await engine.workflows.retry_async("o")


async def test_what_was_undone_is_not_retried(database_url: str) -> None:
    """But forked, from turn 0 or from a step; and what undid it is never copied."""
    broken.add("fragile")
    async with working(database_url) as engine:
        assert isinstance(await ended(engine, ruled_saga), ConnectionError)
        assert [key for key in ran if "ruled_undo" in key]
        with pytest.raises(WorkflowForkError, match="has undone what it had done"):
            await engine.workflows.retry_async("o")
        undone = turn_of(database_url, "o", "/compensating")
        with pytest.raises(WorkflowForkError, match=f"is beyond {undone}"):
            await engine.workflows.fork_async("o", from_turn=undone + 1)
        broken.clear()
        for turn in range(undone):
            assert await result(await engine.workflows.fork_async("o", from_turn=turn)) == "whole"
    assert disorder(database_url) == []


async def test_only_what_failed_or_was_cancelled_is_retried(database_url: str) -> None:
    async with working(database_url) as engine:
        await ended(engine, ruled_list)
        with pytest.raises(WorkflowForkError, match=r"succeeded.*Fork it from a step"):
            await engine.workflows.retry_async("o")
        with pytest.raises(WorkflowNotFoundError):
            await engine.workflows.retry_async("nobody")


# -- shared children -------------------------------------------------------------------------------------------------


async def test_a_shared_child_stays_while_a_fork_may_wait_for_it(database_url: str) -> None:
    """Also for the fork of a fork that is over: all between is kept, by which it is found."""
    older = """UPDATE dbosflow.workflow SET created_at = created_at - interval '3 days',
                                            ended_at = ended_at - interval '2 days'"""
    async with working(database_url) as engine:
        assert await ended(engine, ruled_parent) == "whole"
        first = await engine.workflows.fork_async("o", from_step="ruled_value#1", workflow_id="f")
        assert await result(first) == "whole"
        second = await engine.workflows.fork_async("f", from_turn=first.turn, queue="nobody's", workflow_id="g")
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(older)
            assert await engine.prune_async(older_than=3600, dry_run=True) == 0
            assert await engine.prune_async(older_than=3600) == 0
            connection.execute("UPDATE dbosflow.workflow SET queue = %s WHERE id = 'g'", (QUEUE,))
            await result(await engine.workflows.fork_async("o", from_turn=0))  # which wakes a worker
            assert await result(second) == "whole"
            connection.execute(older)
        assert await engine.prune_async(older_than=3600) == 5 + 1
    assert ran["g ruled_value#1"] == 1


async def test_a_fork_that_would_wait_for_a_removed_child_is_refused(database_url: str) -> None:
    async with working(database_url) as engine:
        assert await ended(engine, ruled_parent) == "whole"
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("DELETE FROM dbosflow.workflow WHERE id = 'o/ruled_child#0'")
        with pytest.raises(WorkflowForkError, match=r"'o/ruled_child#0', which was removed"):
            await engine.workflows.fork_async("o", from_step="ruled_value#1")
        assert rows(database_url, "SELECT count(*) FROM dbosflow.workflow") == [(1,)]
        assert (
            await result(await engine.workflows.fork_async("o", from_turn=last_turn(database_url, "o") + 1)) == "whole"
        )
        assert await result(await engine.workflows.fork_async("o", from_step="ruled_child#0")) == "whole"


# -- what is refused -------------------------------------------------------------------------------------------------


async def test_wrong_input_is_refused_with_what_to_do(database_url: str) -> None:
    async with working(database_url) as engine:
        await ended(engine, ruled_list)
        fork = engine.workflows.fork_async
        with pytest.raises(WorkflowNotFoundError):
            await fork("nobody", from_turn=0)
        with pytest.raises(WorkflowForkError, match=r"no step 'ruled_value#12' on record.*from_turn=12"):
            await fork("o", from_step="ruled_value#12")
        with pytest.raises(WorkflowForkError, match="turns up to 11: from_turn=14 is beyond 12"):
            await fork("o", from_turn=14)
        for wrong in ({}, {"from_step": "a", "from_turn": 1}, {"from_turn": -1}, {"from_turn": 1, "output": 1}):
            with pytest.raises(ConfigurationError):
                await fork("o", **wrong)
        with pytest.raises(ConfigurationError):
            await fork("o", from_step=7)  # type: ignore[arg-type]
        assert rows(database_url, "SELECT count(*) FROM dbosflow.workflow") == [(1,)]


async def test_only_a_step_takes_an_output(database_url: str) -> None:
    async with working(database_url) as engine:
        await ended(engine, ruled_parent)
        with pytest.raises(WorkflowForkError, match="is no step, but a child"):
            await engine.workflows.fork_async("o", from_step="ruled_child#0", output=1)


async def test_a_repeated_fork_finds_the_first_one(database_url: str) -> None:
    async with working(database_url) as engine:
        await ended(engine, ruled_list)
        again: dict[str, Any] = {"from_step": "ruled_value#5", "output": "x", "workflow_id": "f"}
        for _ in range(2):
            assert (await engine.workflows.fork_async("o", **again)).handle.workflow_id == "f"
        for other in ({"output": "y"}, {"from_step": "ruled_value#6"}, {"workflow_id": "o"}):
            with pytest.raises(WorkflowConflictError, match="is taken"):
                await engine.workflows.fork_async("o", **{**again, **other})
        await engine.handle("f").result_async(timeout=PATIENCE)
    assert disorder(database_url) == []


async def test_no_fork_goes_back_before_what_was_trimmed(database_url: str) -> None:
    async with working(database_url) as engine:
        right = await ended(engine, ruled_list)
        await eventually_async_trim(engine, "o", "rows", 6)
        turn = turn_of(database_url, "o", "ruled_value#6")
        for early in (0, turn - 2, turn):
            with pytest.raises(StreamTruncatedError, match="Fork it from a later turn") as refused:
                await engine.workflows.fork_async("o", from_turn=early)
            assert (refused.value.key, refused.value.first_available) == ("rows", 6)
        fork = await engine.workflows.fork_async("o", from_turn=turn + 2)
        assert await result(fork) == right
        assert (await engine.streams.info_async(fork.handle.workflow_id, "rows")).tail == 13
    assert disorder(database_url) == []


async def eventually_async_trim(engine: Engine, workflow_id: str, key: str, before: int) -> None:
    """Trims a stream."""
    assert await engine.streams.trim_async(workflow_id, key, before=before) == before


async def test_values_of_older_code_are_copied_as_a_whole_or_not_at_all(database_url: str) -> None:
    async with working(database_url) as engine:
        right = await ended(engine, ruled_list)
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(
                "UPDATE dbosflow.stream_block SET turn = NULL WHERE workflow_id = 'o' AND \"offset\" < 3"
            )
        with pytest.raises(WorkflowForkError, match="older version of dbosflow"):
            await engine.workflows.fork_async("o", from_step="ruled_value#9")
        fork = await engine.workflows.fork_async("o", from_turn=12)
        assert await result(fork) == right


async def test_no_fork_is_made_while_an_older_worker_could_take_it(database_url: str) -> None:
    async with working(database_url) as engine:
        await ended(engine, ruled_list)
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO dbosflow.worker (id, lease, host, pid, version) "
                "VALUES (gen_random_uuid(), 3600, 'attic', 7, '0.0.9')"
            )
            with pytest.raises(OutdatedWorkersError, match=r"attic \(process 7, version 0\.0\.9\)"):
                await engine.workflows.fork_async("o", from_turn=3)
            connection.execute("UPDATE dbosflow.worker SET state = 'dead' WHERE host = 'attic'")
        await engine.workflows.fork_async("o", from_turn=3)


def test_the_blocking_twins_do_the_same(database_url: str) -> None:
    broken.add("fragile")
    with Engine(database_url) as engine:
        with pytest.raises(ConnectionError):
            engine.run(ruled_failing.options(workflow_id="o"))
        broken.clear()
        assert engine.workflows.fork("o", from_step="ruled_fragile#0").handle.workflow_id
        assert engine.workflows.retry("o", workflow_id="r").turn == turn_of(database_url, "o", "ruled_fragile#0")
