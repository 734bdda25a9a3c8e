"""Least privilege: what ``dbosflow migrate --grants`` prints is enough for each kind of role, and the rest is refused.

The roles cannot log in: the tests connect as the server's own role and take theirs in the session's options.
"""

from __future__ import annotations

import asyncio
import os
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest

from dbosflow import (
    Engine,
    Message,
    Queue,
    Rate,
    Retention,
    Schedule,
    WorkflowFilter,
    create_token_async,
    current,
    read_input_async,
    recv_async,
    requests,
    send_async,
    set_event_async,
    sleep_async,
    step,
    workflow,
    write_stream_async,
)
from dbosflow._store import queue
from dbosflow.cli import main
from dbosflow.codecs import Encrypt, generate_key
from dbosflow.errors import PermissionDeniedError, SchemaError, WorkflowCancelledError
from tests.conftest import POOLER_VARIABLE
from tests.support import eventually, with_parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Execute = Callable[..., list[tuple[Any, ...]]]
    AsRole = Callable[[str], str]

pytestmark = pytest.mark.skipif(bool(os.environ.get(POOLER_VARIABLE)), reason="a pooler takes no options")

KINDS = ("worker", "client", "reader")


@step(max_attempts=2, interval=0)
async def doubled_by_role(number: int) -> int:
    await write_stream_async("tried", number)
    return 2 * number


@workflow
async def child_of_role(number: int) -> int:
    return await doubled_by_role(number)


@workflow(inputs=["given"])
async def everything_by_role() -> list[int]:
    """One of each: a step, an input, a stream, a child, a timer."""
    found = [await doubled_by_role(1)]
    async with read_input_async("given") as given:
        async for item in given:
            if item.closed:
                break
            await write_stream_async("out", item.value)
            found.append(await child_of_role(item.value))
    await sleep_async(0.01)
    return found


@workflow(inputs=["never"])
async def waits_for_role() -> None:
    async with read_input_async("never") as never:
        async for _ in never:
            pass


@workflow
async def talks_by_role() -> list[Any]:
    """A message, a request, a token, events; and a message to itself."""
    found: list[Any] = [await recv_async("t")]
    async for request in requests("q"):
        await request.reply(request.value)
        break
    token = await create_token_async()
    await set_event_async("token", token.id)
    found.append(await token.wait_async())
    await send_async(current().workflow_id, "own", "t")
    return [*found, await recv_async("t")]


@pytest.fixture
def as_role(database_url: str, execute: Execute, capsys: pytest.CaptureFixture[str]) -> Iterator[AsRole]:
    """The database's URL as a role of a kind, which has what the command line prints for it."""
    names = {kind: f"dbosflow_{kind}_{uuid4().hex}" for kind in (*KINDS, "nobody")}
    for kind, name in names.items():
        execute(f"CREATE ROLE {name}")
        if kind in KINDS:
            assert main(["migrate", "--grants", name, "--as", kind]) == 0
            execute(capsys.readouterr().out)
    try:
        yield lambda kind: with_parameters(database_url, options=f"-c role={names[kind]}")
    finally:
        for name in names.values():
            execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_keys_are_replaced_by_the_owner_only(as_role: AsRole, database_url: str) -> None:
    """Records are never changed by those who write them."""
    with Engine(database_url) as engine:
        engine.run(child_of_role, 1)
    codecs = [Encrypt({"k": generate_key()})]
    with Engine(as_role("worker"), executes=False, codecs=codecs) as worker, pytest.raises(PermissionDeniedError):
        worker.workflows.reencrypt()
    with Engine(database_url, executes=False, codecs=codecs) as owner:
        assert owner.workflows.reencrypt().unreadable == 0


def test_workers_and_clients_need_no_more_than_their_grants(as_role: AsRole, execute: Execute) -> None:
    """A worker runs all there is, a client starts, writes, cancels and reads, a reader reads."""
    with (
        Engine(as_role("worker"), compact_every=0.05, retention=Retention(finished_after=3600)) as worker,
        Engine(as_role("client"), executes=False) as client,
        Engine(as_role("reader"), executes=False) as reader,
    ):
        serving = threading.Thread(target=worker.run_worker, args=("default",), daemon=True)
        serving.start()
        handle = client.start(everything_by_role.options(workflow_id="all"))
        for number in (3, 4):
            client.write_stream("all", "given", number)
        client.close_stream("all", "given")
        assert handle.result(timeout=60) == [2, 6, 8]
        assert list(reader.read_stream("all", "out", timeout=60)) == [3, 4]
        assert reader.handle("all", everything_by_role).result(timeout=60) == [2, 6, 8]
        assert len(reader.list_workflows()) == 3
        assert reader.list_steps("all")
        assert {one.key for one in reader.streams.list("all")} >= {"given", "out", "tried"}

        talking = client.start(talks_by_role.options(workflow_id="talks"), message=Message("t", "first"))
        assert client.ask("talks", 7, "q", timeout=60) == 7
        client.resolve(reader.get_event("talks", "token", timeout=60), "answered")
        assert talking.result(timeout=60) == ["first", "answered", "own"]
        assert set(reader.events("talks")) == {"token"}

        waiting = client.start(waits_for_role.options(workflow_id="waiting"))
        waiting.cancel()
        unbegun = client.start(waits_for_role.options(queue="nobody-serves-it", workflow_id="unbegun"))
        assert unbegun.cancel().outcome == "cancelled"
        assert worker.run(child_of_role, 5) == 10
        assert client.resume("all").outcome == "unchanged"
        named = client.workflows.start(child_of_role.definition.name, {"number": 2}, attributes={"by": "name"})
        assert named.result(timeout=60) == 4
        client.workflows.update_attributes("all", {"by": "role", "none": None})
        by_role = WorkflowFilter(attributes={"by": "role"})
        assert [one.id for one in reader.workflows.iterate(by_role)] == ["all"]
        assert sum(reader.workflows.count(by="status").values()) == 8
        assert [one.outcome for one in client.workflows.cancel(["unbegun", "nobody"], reason="r")] == [
            "ended",
            "unknown",
        ]
        assert client.workflows.resume(WorkflowFilter(id_prefix="a")) == []
        eventually(lambda: worker.workflows.delete(named.workflow_id)[0].outcome == "deleted")
        client.start(waits_for_role.options(queue="q", workflow_id="pinned", pin_version="v1"))
        assert client.workflows.set_priority("pinned", 3)[0].outcome == "changed"
        assert client.workflows.unpin("pinned")[0].outcome == "unpinned"
        assert client.handle("pinned").cancel().outcome == "cancelled"
        assert worker.workflows.fork("all", from_turn=0).handle.result(timeout=60) == [2, 6, 8]
        worker.streams.trim("all", "out", before=1)
        with pytest.raises(WorkflowCancelledError):
            reader.handle("waiting").result(timeout=60)
        eventually(lambda: execute("SELECT completed_at FROM dbosflow.retention"))  # it walked, and found nothing
        removed = 0
        while reader.list_workflows():  # one with inputs stays as long as somebody has an older snapshot
            removed += worker.prune(older_than=1e-6)
        assert removed == 11
    serving.join(60)


def test_a_client_deduplicates_starts(as_role: AsRole) -> None:
    """It changes what waits, and asks what runs to end."""
    with Engine(as_role("worker")) as worker, Engine(as_role("client"), executes=False) as client:
        threading.Thread(target=worker.run_worker, args=("default",), daemon=True).start()
        replaced = waits_for_role.options(
            queue="q", dedup_key="k", on_duplicate="replace", delay=60, attributes={"a": 1}
        )
        assert client.start(replaced).workflow_id == client.start(replaced).workflow_id
        assert client.start(replaced).cancel().outcome == "cancelled"
        alone = waits_for_role.options(dedup_key="k", on_duplicate="cancel_running")
        one_runs = client.start(alone)
        assert eventually(lambda: one_runs.status() == "running")
        one_waits = client.start(alone)
        assert eventually(lambda: one_waits.status() == "running")
        one_waits.cancel()
        assert one_runs.status() == "cancelled"


def test_a_client_manages_schedules_and_queues(as_role: AsRole) -> None:
    """A worker starts the ticks, within the queue's limits; a reader sees both."""
    with (
        Engine(as_role("worker")) as worker,
        Engine(as_role("client"), executes=False) as client,
        Engine(as_role("reader"), executes=False) as reader,
    ):
        threading.Thread(target=worker.run_worker, args=("q",), daemon=True).start()
        client.queues.apply(Queue("q", concurrency=1, rate=Rate(1000, per=1)))
        client.schedules.apply(Schedule("s", child_of_role, every=1, queue="q", args={"number": 4}))
        assert eventually(lambda: reader.schedules.get("s").last_at)
        for workflow_id in [one.id for one in reader.list_workflows(name=child_of_role.definition.name)]:
            assert reader.handle(workflow_id).result(timeout=60) == 8
        assert client.schedules.pause("s").paused
        assert client.schedules.trigger("s").result(timeout=60) == 8
        begin = datetime(2026, 1, 1, tzinfo=UTC)
        assert client.schedules.backfill("s", begin, begin + timedelta(seconds=2)) == 2
        assert not client.schedules.resume("s").paused
        client.queues.change("q", concurrency=2)
        client.queues.pause("q")
        assert reader.queues.info("q").paused
        client.queues.resume("q")
        assert [one.name for one in reader.queues.list()] == ["q"]
        assert client.queues.delete("q")
        client.schedules.delete("s")
        assert reader.schedules.list() == []


async def test_statements_of_other_roles_are_seen_when_a_queue_gets_its_first_limits(
    as_role: AsRole, database_url: str
) -> None:
    """An ordinary role does not see of what type other roles' sessions are, nor what they do."""
    async with (
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as holder,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as other,
        await psycopg.AsyncConnection.connect(as_role("client"), autocommit=True) as client,
    ):
        await holder.execute("SELECT pg_advisory_lock(1)")
        late = asyncio.create_task(other.execute("SELECT pg_advisory_lock(1)"))
        running = "SELECT backend_xmin FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
        while not await (await holder.execute(running, (other.info.backend_pid,))).fetchall():
            pass
        await queue.apply(client, "dbosflow", "q", {"concurrency": 1})
        found = await queue.under_way(client, "dbosflow", "q")
        assert found is not None
        assert found.older
        await holder.execute("SELECT pg_advisory_unlock(1)")
        await late
        found = await queue.under_way(client, "dbosflow", "q")
        assert found is not None
        assert not found.older


def test_a_client_needs_no_more_in_a_transaction(as_role: AsRole) -> None:
    """It applies a start that it is to cancel; a reader may not even write one."""
    with Engine(as_role("client"), executes=False) as client, psycopg.connect(as_role("client")) as user:
        new = client.start_in(user, waits_for_role)
        client.start_in(user, waits_for_role.options(workflow_id="given", attributes={"a": 1}, timeout=60))
        client.send_in(user, "given", 1)
        keyed = client.start_in(user, waits_for_role.options(dedup_key="k"))
        (many,) = client.start_many_in(user, waits_for_role, [()])
        user.commit()
        assert keyed.cancel().outcome == many.cancel().outcome == "cancelled"
        assert new.cancel().outcome == client.handle("given").cancel().outcome == "cancelled"
        with psycopg.connect(as_role("reader")) as reader, pytest.raises(PermissionDeniedError, match="--as client"):
            client.send_in(reader, "given", 1)


def test_a_reader_changes_nothing(as_role: AsRole) -> None:
    """Each attempt ends at once, with an error that says who may."""
    with (
        Engine(as_role("client"), executes=False) as client,
        Engine(as_role("reader"), executes=False) as reader,
    ):
        client.start(waits_for_role.options(workflow_id="there"))
        attempts: list[Callable[[], object]] = [
            lambda: reader.start(child_of_role, 1),
            lambda: reader.handle("there").cancel(),
            lambda: reader.write_stream("there", "never", 1),
            lambda: reader.close_stream("there", "never"),
            lambda: reader.send("there", 1),
            lambda: reader.start(child_of_role.options(workflow_id="new"), 1, message=Message("t", 1)),
            lambda: reader.streams.trim("there", "never", before=1),
            lambda: reader.prune(older_than=1),
            lambda: reader.workflows.cancel("there"),
            lambda: reader.workflows.resume("there"),
            lambda: reader.workflows.delete("there"),
            lambda: reader.workflows.update_attributes("there", {"a": 1}),
            lambda: reader.workflows.start("by name"),
            lambda: reader.start_many(child_of_role, [(1,)]),
            lambda: reader.start(child_of_role.options(dedup_key="k"), 1),
            lambda: reader.queues.apply(Queue("q", concurrency=1)),
            lambda: reader.queues.pause("q"),
            lambda: reader.queues.delete("q"),
            lambda: reader.schedules.apply(Schedule("s", child_of_role, every=1, args={"number": 1})),
            lambda: reader.schedules.pause("s"),
            lambda: reader.schedules.trigger("s"),
            lambda: reader.schedules.delete("s"),
        ]
        for attempt in attempts:
            with pytest.raises(PermissionDeniedError, match="dbosflow migrate --grants"):
                attempt()
        assert reader.handle("there").status() == "queued"


def test_a_client_prunes_and_runs_nothing(as_role: AsRole) -> None:
    """Nor does it trim or fork; and an engine that would run workflows does not open."""
    with Engine(as_role("client"), executes=False) as client:
        client.start(waits_for_role.options(workflow_id="there"))
        with pytest.raises(PermissionDeniedError):
            client.prune(older_than=1)
        with pytest.raises(PermissionDeniedError):
            client.workflows.delete("there")
        with pytest.raises(PermissionDeniedError):
            client.streams.trim("there", "never", before=1)
        with pytest.raises(PermissionDeniedError):
            client.workflows.fork("there", from_turn=0)
    for kind in ("client", "reader"):
        with pytest.raises(SchemaError, match="dbosflow migrate --grants"), Engine(as_role(kind)):
            pass


@pytest.mark.parametrize(
    ("kind", "statement"),
    [
        ("worker", "UPDATE dbosflow.step SET output = '1'"),
        ("worker", "UPDATE dbosflow.compatibility SET oldest_code = 9"),
        ("worker", "CREATE TABLE dbosflow.mine (a int)"),
        ("worker", "DROP TABLE dbosflow.step"),
        ("client", "UPDATE dbosflow.workflow SET output = '1'"),
        ("client", "UPDATE dbosflow.workflow SET worker_id = NULL"),
        ("client", "INSERT INTO dbosflow.step (workflow_id) VALUES ('x')"),
        ("client", "DELETE FROM dbosflow.workflow"),
        ("client", "UPDATE dbosflow.worker SET state = 'dead'"),
        ("reader", "INSERT INTO dbosflow.stream_block (workflow_id) VALUES ('x')"),
        ("reader", "UPDATE dbosflow.workflow SET status = 'queued'"),
    ],
)
def test_what_a_kind_does_not_need_is_refused(as_role: AsRole, kind: str, statement: str) -> None:
    """Also past the engine, by SQL of its own."""
    with psycopg.connect(as_role(kind)) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement.encode())


def test_a_schema_to_be_migrated_is_the_owners_business(as_role: AsRole, execute: Execute) -> None:
    """A worker that meets an older schema, or none that it may use, says whose turn it is."""
    for kind in ("nobody", "worker"):
        if kind == "worker":
            execute("UPDATE dbosflow.schema_version SET version_num = '0002'")
        with pytest.raises(SchemaError, match="Run `dbosflow migrate` as the role that owns the schema"):
            Engine(as_role(kind)).open()


def test_doctor_agrees_with_the_grants(as_role: AsRole, capsys: pytest.CaptureFixture[str]) -> None:
    """A worker's role has all that it looks for."""
    main(["doctor", "--database-url", as_role("worker")])
    assert "lacks" not in capsys.readouterr().out
