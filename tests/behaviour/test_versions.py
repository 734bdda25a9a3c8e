"""Versions: a pinned workflow runs on workers that carry its version, and nowhere else; all others run anywhere."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, WorkflowFilter, current, workflow
from dbosflow.errors import ConfigurationError
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from dbosflow import WorkflowHandle

    Execute = Callable[..., list[tuple[Any, ...]]]

PATIENCE = 60.0

go_on: asyncio.Event


@workflow
async def versioned() -> str:
    return "done"


@workflow
async def versioned_parent(option: str) -> list[str | None]:
    """Starts a child as its own option says."""
    options: dict[str, dict[str, Any]] = {
        "default": {},
        "queued": {"queue": "q"},
        "unpinned": {"pin_version": False},
        "other": {"pin_version": "v2"},
    }
    workflow_id = f"{current().workflow_id}-child"
    handle = await versioned.options(workflow_id=workflow_id, **options[option]).start_async()
    return [await handle.result_async()]


@workflow
async def waits_on_a_version() -> None:
    await go_on.wait()


@asynccontextmanager
async def worker(url: str, version: str | None, *queues: str, **options: Any) -> AsyncIterator[Engine]:
    """An engine of a version that serves queues."""
    async with Engine(url, version=version, lease=2.0) as engine:
        working = asyncio.create_task(engine.run_worker_async(*queues or ("q",), **options))
        try:
            yield engine
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


def owners(execute: Execute) -> dict[str, str | None]:
    """The version of the worker that runs each workflow."""
    query = (
        "SELECT w.id, k.version_name FROM dbosflow.workflow w JOIN dbosflow.worker k ON k.id = w.worker_id "
        "WHERE w.status = 'running'"
    )
    return dict(execute(query))


async def test_a_pinned_workflow_waits_for_its_version(database_url: str, client: Engine, execute: Execute) -> None:
    """Others of the queue do not wait for it, and go to any worker."""
    global go_on  # noqa: PLW0603 (a workflow has no other place to find it)
    go_on = asyncio.Event()

    async def start(workflow_id: str, **options: Any) -> WorkflowHandle[None]:
        target = waits_on_a_version.options(workflow_id=workflow_id, queue="q", **options)
        return await asyncio.to_thread(client.start, target)

    for number in range(3):
        await start(f"one-{number}", pin_version="v1")
        await start(f"any-{number}")
    async with worker(database_url, "v2"):
        await asyncio.to_thread(eventually, lambda: set(owners(execute)) == {"any-0", "any-1", "any-2"})
        async with worker(database_url, "v1"):
            await asyncio.to_thread(eventually, lambda: len(owners(execute)) == 6)
            found = owners(execute)
            assert {found[f"one-{number}"] for number in range(3)} == {"v1"}
            assert {found[f"any-{number}"] for number in range(3)} == {"v2"}
            go_on.set()
            for info in await asyncio.to_thread(client.list_workflows):
                await asyncio.to_thread(client.handle(info.id).result, PATIENCE)


@pytest.mark.parametrize(
    ("option", "version"), [("default", "v1"), ("queued", "v1"), ("unpinned", None), ("other", "v2")]
)
async def test_children_are_pinned_like_their_parent(database_url: str, option: str, version: str | None) -> None:
    """Unless an option says otherwise; one of another version goes to the workers of that."""
    async with worker(database_url, "v1") as one, worker(database_url, "v2", "q", "default"):
        handle = await one.start_async(versioned_parent.options(workflow_id="p", pin_version=True), option)
        assert await handle.result_async(PATIENCE) == ["done"]
        infos = {info.id: info for info in await one.list_workflows_async()}
    assert (infos["p"].pinned_version, infos["p"].queue) == ("v1", "")
    assert infos["p-child"].pinned_version == version
    assert infos["p-child"].queue == {"queued": "q", "other": "default"}.get(option, "")


async def test_a_pinned_workflow_of_a_dead_process_goes_on_with_its_version(
    database_url: str, client: Engine, execute: Execute
) -> None:
    """It was started in the process, without a queue; and a release, a park and a resumption change nothing of it."""
    global go_on  # noqa: PLW0603 (as above)
    go_on = asyncio.Event()
    async with Engine(database_url, version="v1") as engine:
        await engine.start_async(waits_on_a_version.options(workflow_id="w", pin_version=True))
    assert execute("SELECT status, queue FROM dbosflow.workflow") == [("queued", "dbosflow/pinned/v1/")]
    execute("UPDATE dbosflow.workflow SET status = 'blocked'")
    go_on.set()
    async with worker(database_url, "v2"), worker(database_url, None) as other:
        await asyncio.to_thread(client.resume, "w")
        await other.run_async(versioned.options(queue="q"))
        assert (await other.handle("w").status_async()) == "queued"
        assert (await asyncio.to_thread(client.workflows.explain, "w")).causes[0].code == "unknown-version"
        async with worker(database_url, "v1"):
            await other.handle("w").result_async(PATIENCE)


async def test_pinned_and_other_workflows_share_the_slots_of_their_queue(
    database_url: str, client: Engine, execute: Execute
) -> None:
    """However they are mixed, no more of both run than the concurrency says."""
    global go_on  # noqa: PLW0603 (as above)
    go_on = asyncio.Event()
    for number in range(12):
        target = waits_on_a_version.options(queue="q", pin_version="v1" if number % 2 else None)
        await asyncio.to_thread(client.start, target)
    async with worker(database_url, "v1", concurrency=4):
        await asyncio.to_thread(eventually, lambda: len(owners(execute)) == 4)
        assert len(owners(execute)) == 4
        go_on.set()
        await asyncio.to_thread(
            eventually, lambda: not execute("SELECT 1 FROM dbosflow.workflow WHERE ended_at IS NULL"), timeout=PATIENCE
        )


def test_unpinned_workflows_run_anywhere(database_url: str, client: Engine, execute: Execute) -> None:
    """A waiting one at once; what is not pinned, has ended or is not there is left alone."""
    handle = client.start(versioned.options(workflow_id="w", queue="q", pin_version="gone"))
    client.start(versioned.options(workflow_id="plain", queue="elsewhere"))

    async def main() -> Any:
        async with worker(database_url, None):
            changes = await asyncio.to_thread(client.workflows.unpin, ["w", "plain", "nobody"])
            return changes, await asyncio.to_thread(handle.result, PATIENCE)

    changes, result = asyncio.run(main())
    assert [(change.id, change.outcome) for change in changes] == [
        ("w", "unpinned"),
        ("plain", "unchanged"),
        ("nobody", "unknown"),
    ]
    assert result == "done"
    assert execute("SELECT queue FROM dbosflow.workflow WHERE id = 'w'") == [("q",)]


def test_versions_are_listed_with_what_still_needs_them(database_url: str, client: Engine) -> None:
    for number in range(3):
        client.start(versioned.options(workflow_id=f"w{number}", queue="q", pin_version="v1"))
    client.start(versioned.options(queue="q"))
    client.workflows.start("versioned", queue="q", pin_version="v1")
    with Engine(database_url, version="v2"), Engine(database_url, version="v2"):
        one, two = client.workflows.versions()
    assert (one.version, one.workers, one.pinned, one.statuses) == ("v1", 0, 4, {"queued": 4})
    assert one.oldest == client.workflows.get("w0").created_at
    assert (two.version, two.workers, two.runs, two.pinned, two.oldest) == ("v2", 2, 0, 0, None)
    assert client.workflows.count(by="queue") == {"q": 5}
    assert len(client.list_workflows(WorkflowFilter(queue="q"))) == 5
    explained = client.workflows.explain("w0").causes[0]
    assert "--queue q --version-name v1" in explained.frees


@pytest.mark.parametrize("version", ["", "a/b", "x" * 129, 3, "\0"])
def test_what_can_name_no_version_is_refused(version: Any) -> None:
    with pytest.raises(ConfigurationError):
        Engine("postgresql:///x", version=version)
    with pytest.raises(ConfigurationError):
        versioned.options(pin_version=version)


def test_a_pin_needs_a_version_and_queues_of_such_names_are_reserved(client: Engine) -> None:
    with pytest.raises(ConfigurationError, match=r"give Engine\(version=...\)"):
        client.start(versioned.options(pin_version=True))
    with pytest.raises(ConfigurationError, match="must not begin with 'dbosflow/'"):
        versioned.options(queue="dbosflow/pinned/v1/q")
    with pytest.raises(ConfigurationError, match="must not begin with 'dbosflow/'"):
        client.run_worker("dbosflow/pinned/v1/q")
