"""``dbosflow workflow``: listings by criteria, requests about many, attributes, and starts by name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, workflow
from dbosflow.cli import main
from tests.behaviour.tables import rows
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(database_url: str, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command on the test's database; its status and what it has printed."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(["workflow", *arguments, "--database-url", database_url])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@workflow(name="managed by command")
def managed(number: int) -> int:
    return 2 * number


@pytest.fixture
def listed(database_url: str, execute: Any) -> None:
    """Workflows ``w0`` to ``w5``: two have succeeded, two are blocked, two wait in queue ``q``."""
    with Engine(database_url, executes=False) as engine:
        for number in range(6):
            attributes: dict[str, str | int | bool] = {"customer": "acme", "number": number, "vip": number == 3}
            engine.start(managed.options(workflow_id=f"w{number}", queue="q", attributes=attributes), number)
    execute(
        """UPDATE dbosflow.workflow SET status = 'succeeded', epoch = 1, queue = '', output = '0',
                  ended_at = now() - interval '2 days', created_at = now() - interval '3 days'
           WHERE id IN ('w0', 'w1')"""
    )
    execute("UPDATE dbosflow.workflow SET status = 'blocked', epoch = 1 WHERE id IN ('w2', 'w3')")


def ids(printed: str) -> list[str]:
    return [row["id"] for row in json.loads(printed)]


@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize(
    ("criteria", "expected"),
    [
        ("", "w5 w4 w3 w2 w1 w0"),
        ("--status blocked --status succeeded --limit 3", "w3 w2 w1"),
        ("--queue= --name", "w1 w0"),
        ("--created-after 1h --all", "w5 w4 w3 w2"),
        ("--ended-before 2000-01-01T00:00", ""),
        ("--ended-after 30d", "w1 w0"),
        ("--attribute vip=true", "w3"),
        ("--attribute customer=acme --attribute number=4", "w4"),
        ('--attribute number="4"', ""),
        ("--id-prefix w --parent nobody", ""),
    ],
)
def test_a_listing_has_criteria(command: Command, criteria: str, expected: str) -> None:
    words = [*criteria.split(), "managed by command"] if criteria.endswith("--name") else criteria.split()
    status, out, _ = command("list", *words, "--json")
    assert (status, ids(out)) == (0, expected.split())


@pytest.mark.usefixtures("listed")
def test_workflows_are_counted(command: Command) -> None:
    assert command("count")[1] == "6\n"
    assert json.loads(command("count", "--status", "blocked", "--json")[1]) == {"count": 2}
    assert json.loads(command("count", "--by", "status", "--json")[1]) == {"blocked": 2, "queued": 2, "succeeded": 2}
    assert command("count", "--by", "queue")[1].split() == ["QUEUE", "COUNT", "q", "4", "-", "2"]


@pytest.mark.usefixtures("listed")
def test_a_dry_run_changes_nothing(command: Command) -> None:
    for name, expected in (("cancel", "w5 w4 w3 w2"), ("resume", "w3 w2"), ("delete", "w1 w0")):
        status, out, _ = command(name, "--id-prefix", "w", "--dry-run", "--json")
        assert (status, ids(out)) == (0, expected.split())
        assert command(name, "w0", "w2", "--dry-run")[1].endswith(f"{name}: 1 workflow, if this were no dry run\n")
    assert json.loads(command("count", "--by", "status", "--json")[1]) == {"blocked": 2, "queued": 2, "succeeded": 2}


@pytest.mark.usefixtures("listed")
def test_requests_take_criteria(command: Command) -> None:
    """And say how many of them came to what; by ids, each has a line."""
    assert command("resume", "--name", "managed by command", "--attribute", "number=2") == (0, "1 resumed\n", "")
    assert command("delete", "--attribute", "customer=acme", "--limit", "1") == (0, "1 deleted\n", "")
    status, out, err = command("delete", "w0", "w2", "w1")
    assert status == 1
    assert out.splitlines() == ["w0: deleted; it was succeeded", "w2: stays, since it has not ended: queued"]
    assert err == "dbosflow: there is no workflow 'w1'\n"
    assert sorted(command("cancel", "--queue", "q", "--reason", "no")[1].splitlines()) == ["2 cancelled", "2 requested"]
    assert command("resume", "--status", "blocked") == (0, "there are no such workflows\n", "")
    status, out, _ = command("cancel", "--status", "queued", "--json")
    assert (status, {row["outcome"] for row in json.loads(out)}) == (0, {"requested"})


@pytest.mark.usefixtures("listed")
def test_attributes_are_shown_and_changed(command: Command) -> None:
    assert command("attributes", "w3")[1].splitlines() == ['customer="acme"', "number=3", "vip=true"]
    words = ["--set", 'number="3"', "--set", "region=north west", "--remove", "vip", "--remove", "none"]
    expected = {"customer": "acme", "number": "3", "region": "north west"}
    assert json.loads(command("attributes", "w3", *words, "--json")[1]) == expected
    assert json.loads(command("show", "w3", "--json")[1])["attributes"] == expected
    status, _, err = command("attributes", "nobody", "--set", "a=1")
    assert (status, err) == (1, "dbosflow: there is no workflow 'nobody'\n")


def test_a_workflow_is_started_by_its_name(command: Command, database_url: str) -> None:
    """It runs on a worker; the same id is not started again."""
    words = ["managed by command", "--args", '{"number": 21}', "--workflow-id", "w", "--attribute", "a=1"]
    assert command("start", *words) == (0, "w\n", "")
    assert json.loads(command("start", *words, "--json")[1]) == {"id": "w"}
    with Engine(database_url) as engine:
        engine._host.call("work", _serve, engine)
        assert engine.handle("w", managed).result(timeout=60) == 42
        assert engine.workflows.get("w").attributes == {"a": 1}
    limited = [*words[:3], "--workflow-id", "limited", "--timeout"]
    assert command("start", *limited, "3600")[0] == 0
    query = "SELECT extract(epoch FROM deadline_at - created_at)::float FROM dbosflow.workflow WHERE id = 'limited'"
    assert rows(database_url, query) == [(3600,)]
    assert "timeout=-1.0 must be" in command("start", *limited, "-1")[2]
    assert command("start", "managed by command", "--args", "[1]")[0] == 1
    assert command("start", "managed by command", "--args", "{")[2].startswith("dbosflow: --args is no JSON")
    status, _, err = command("start", "a name that nobody knows", "--workflow-id", "w")
    assert (status, "belongs to workflow 'managed by command'" in err) == (1, True)
    eventually(lambda: command("delete", "w")[0] == 0)


async def _serve(engine: Engine) -> None:
    """Serves the default queue until the engine closes."""
    import asyncio

    serving = asyncio.ensure_future(engine.run_worker_async(concurrency=1))
    serving.add_done_callback(lambda done: done.cancelled() or done.exception())
