"""``engine.workflows`` changes many workflows at a time: by their ids, or by a filter."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, WorkflowFilter, workflow, write_stream
from dbosflow.errors import ConfigurationError, WorkflowCancelledError
from dbosflow.types import WorkflowChange
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Execute = Callable[..., list[Any]]

TABLES = ("workflow", "step", "stream_block", "attribute")


@workflow
def managed(fails: bool = False) -> None:  # noqa: FBT001, FBT002 (an argument)
    write_stream("out", 1)
    if fails:
        raise ValueError("no")


@workflow
def managed_parent() -> None:
    managed()
    managed()


@pytest.fixture
def blocked(client: Engine, execute: Execute) -> Engine:
    """Blocked workflows ``b-0`` to ``b-249``, and one that is queued."""
    execute(
        """INSERT INTO dbosflow.workflow (id, name, status, queue, input, epoch, recoveries, created_at)
           SELECT 'b-' || n, 'unknown', 'blocked', 'q' || n % 2, '{}'::json, 1, 10, now() + n * interval '1 second'
           FROM generate_series(0, 249) n
           UNION ALL SELECT 'queued', 'unknown', 'queued', 'q0', '{}'::json, 1, 0, now()"""
    )
    return client


def outcomes(changes: Sequence[WorkflowChange]) -> dict[str, str]:
    return {change.id: change.outcome for change in changes}


def test_what_is_blocked_is_resumed_by_a_filter(blocked: Engine, execute: Execute) -> None:
    """In batches, whose progress is told; and the second time there is nothing to do."""
    told: list[int] = []
    changes = blocked.workflows.resume(WorkflowFilter(queue="q1"), progress=told.append)
    assert {(change.outcome, change.status) for change in changes} == {("resumed", "queued")}
    assert {change.id for change in changes} == {f"b-{number}" for number in range(1, 250, 2)}
    assert told == [100, 125]
    counted = "SELECT status, recoveries, count(*) FROM dbosflow.workflow GROUP BY 1, 2 ORDER BY 1, 2"
    assert execute(counted) == [("blocked", 10, 125), ("queued", 0, 126)]
    assert blocked.workflows.resume(WorkflowFilter(queue="q1")) == []
    assert len(blocked.workflows.resume(WorkflowFilter(status="blocked", limit=110))) == 110
    assert blocked.workflows.count(WorkflowFilter(status="blocked")) == 15


def test_each_id_has_an_answer_in_its_order(blocked: Engine) -> None:
    asked = ["b-3", "nobody", "queued", "b-3", "b-1"]
    assert blocked.workflows.resume(asked) == [
        WorkflowChange("b-3", "resumed", blocked.handle("b-3").status()),
        WorkflowChange("nobody", "unknown", None),
        WorkflowChange("queued", "unchanged", blocked.handle("queued").status()),
        WorkflowChange("b-1", "resumed", blocked.handle("b-1").status()),
    ]
    assert outcomes(asyncio.run(blocked.workflows.resume_async("b-5"))) == {"b-5": "resumed"}
    assert blocked.workflows.resume([]) == []


@pytest.mark.parametrize("which", [WorkflowFilter(), WorkflowFilter(limit=3), None, 3, [1], [""]], ids=str)
def test_a_selection_of_everything_or_nothing_is_refused(client: Engine, which: Any) -> None:
    for act in (client.workflows.cancel, client.workflows.resume, client.workflows.delete):
        with pytest.raises(ConfigurationError, match=r"selects|workflow id"):
            act(which)
    with pytest.raises(ConfigurationError, match="progress"):
        client.workflows.resume("a", progress=3)  # type: ignore[arg-type]  # what is refused


def test_what_has_ended_is_deleted_with_all_its_rows(engine: Engine, execute: Execute) -> None:
    """And its id is free. What has not ended stays, and so do others of the same kind."""
    for name in ("one", "two", "other"):
        engine.run(managed.options(workflow_id=name))
    execute("INSERT INTO dbosflow.attribute (workflow_id, name, value) VALUES ('one', 'a', '1'), ('other', 'a', '1')")
    engine.start(managed.options(workflow_id="waits", queue="later"))
    deleted: dict[str, str] = {}

    def all_gone() -> bool:  # somebody may have a snapshot that is older than an end
        for one, outcome in outcomes(engine.workflows.delete(["one", "two", "waits", "nobody"])).items():
            if deleted.get(one) in (None, "held"):
                deleted[one] = outcome
        return "held" not in deleted.values()

    eventually(all_gone)
    assert deleted == {"one": "deleted", "two": "deleted", "waits": "active", "nobody": "unknown"}
    for table in TABLES:
        column = "id" if table == "workflow" else "workflow_id"
        left = {row[0] for row in execute(f"SELECT DISTINCT {column} FROM dbosflow.{table}")}
        assert left <= {"other", "waits"}, table
    assert engine.run(managed.options(workflow_id="one")) is None


def test_children_go_with_their_parents(engine: Engine) -> None:
    """Unless they are to stay; and a child whose parent runs is needed."""
    engine.run(managed_parent.options(workflow_id="p"))
    engine.run(managed_parent.options(workflow_id="keeps"))
    ids = {info.id for info in engine.workflows.iterate() if info.id == "p" or info.parent_id == "p"}
    assert len(ids) == 3

    def deleted(which: str, *, children: bool) -> dict[str, str]:
        def probe() -> dict[str, str]:
            found = outcomes(engine.workflows.delete(which, children=children))
            return {} if "held" in found.values() else found

        return eventually(probe)

    assert deleted("p", children=True) == dict.fromkeys(ids, "deleted")
    assert deleted("keeps", children=False) == {"keeps": "deleted"}
    assert engine.workflows.count(WorkflowFilter(parent_id="keeps")) == 2


def test_a_child_is_kept_while_its_parent_may_ask_for_it(client: Engine, execute: Execute) -> None:
    execute(
        """INSERT INTO dbosflow.workflow (id, name, status, input, epoch, parent_id, ended_at)
           VALUES ('p', 'x', 'queued', '{}', 1, NULL, NULL),
                  ('c', 'x', 'succeeded', '{}', 1, 'p', now() - interval '2 days')"""
    )
    assert outcomes(client.workflows.delete(["c", "p"])) == {"c": "needed", "p": "active"}


def test_a_filter_deletes_only_what_has_ended(client: Engine, execute: Execute) -> None:
    execute(
        """INSERT INTO dbosflow.workflow (id, name, status, queue, input, epoch, ended_at)
           SELECT 'w' || n, 'x', CASE WHEN n < 150 THEN 'failed' ELSE 'queued' END, 'q', '{}', 1,
                  CASE WHEN n < 150 THEN now() - interval '2 days' END
           FROM generate_series(0, 199) n"""
    )
    told: list[int] = []
    changes = client.workflows.delete(WorkflowFilter(queue="q"), progress=told.append)
    assert {change.outcome for change in changes} == {"deleted"}
    assert (len(changes), told) == (150, [100, 150])
    assert client.workflows.count(WorkflowFilter(queue="q"), by="status") == {"queued": 50}
    assert client.workflows.delete(WorkflowFilter(queue="q", status="queued")) == []


@workflow
async def runs_on() -> None:
    await asyncio.Event().wait()


def test_many_are_cancelled_with_a_reason(engine: Engine, blocked: Engine) -> None:
    """Whatever they do: those that run by their worker, those that have not begun at once."""
    running = [engine.start(runs_on.options(workflow_id=f"r-{number}")) for number in range(3)]
    engine.run(managed.options(workflow_id="done"))
    blocked.start(managed.options(workflow_id="new", queue="later"))
    asked = ["r-0", "done", "nobody", "new", "r-1", "b-0"]
    changes = outcomes(blocked.workflows.cancel(asked, reason="no longer needed"))
    assert list(changes.values()) == ["requested", "ended", "unknown", "cancelled", "requested", "requested"]
    for handle in running[:2]:
        with pytest.raises(WorkflowCancelledError, match="no longer needed"):
            handle.result(timeout=60)
    assert running[2].status() == "running"
    told: list[int] = []
    changes = outcomes(blocked.workflows.cancel(WorkflowFilter(status="blocked"), progress=told.append))
    assert (set(changes.values()), told) == ({"requested"}, [100, 200, 249])
    assert blocked.workflows.count(WorkflowFilter(status="blocked")) == 0
    assert outcomes(asyncio.run(blocked.workflows.cancel_async(WorkflowFilter(id_prefix="r-")))) == {"r-2": "requested"}


def test_one_that_has_another_status_by_now_is_left_alone(client: Engine, execute: Execute) -> None:
    """A filter that names statuses means those, also of what is claimed between a look and the request."""
    client.start(managed.options(workflow_id="w", queue="later"))
    look = type(client._core.repository).rows

    async def rows_and_a_claim(*args: Any, **kwargs: Any) -> Any:
        found = await look(*args, **kwargs)
        execute("UPDATE dbosflow.workflow SET status = 'running', epoch = 1")
        return found

    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(type(client._core.repository), "rows", rows_and_a_claim)
        assert outcomes(client.workflows.cancel(WorkflowFilter(status="queued"))) == {"w": "unchanged"}
    assert execute("SELECT cancel_requested_at FROM dbosflow.workflow") == [(None,)]


def test_requests_at_the_same_time_do_not_deadlock(blocked: Engine, database_url: str) -> None:
    """However their ids are ordered: each workflow is resumed by one of them."""
    ids = [f"b-{number}" for number in range(250)]
    resumed: list[str] = []

    def resume(which: list[str]) -> None:
        with Engine(database_url, executes=False) as engine:
            changes = engine.workflows.resume(which)
        resumed.extend(change.id for change in changes if change.outcome == "resumed")

    threads = [threading.Thread(target=resume, args=(which,)) for which in (ids, ids[::-1], ids[100:] + ids[:100])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(resumed) == sorted(ids)
