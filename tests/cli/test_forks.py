"""``dbosflow workflow fork`` and ``retry``, for people and programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from dbosflow import Engine, step, workflow

if TYPE_CHECKING:
    from tests.cli.shell import Shell


@step
def cli_forked_step(what: str) -> str:
    if what == "bad":
        raise ValueError(what)
    return what


@workflow
def cli_forked(what: str) -> str:
    return cli_forked_step("first") + cli_forked_step(what)


@pytest.fixture(autouse=True)
def originals(database_url: str) -> None:
    with Engine(database_url) as engine:
        engine.run(cli_forked.options(workflow_id="good"), "good")
        with pytest.raises(ValueError, match="bad"):
            engine.run(cli_forked.options(workflow_id="bad"), "bad")


def test_a_fork_says_where_it_goes_on(shell: Shell, database_url: str) -> None:
    done = shell.run(
        "workflow",
        "fork",
        "good",
        "--from-step",
        "cli_forked_step#1",
        "--output",
        '"x"',
        "--workflow-id",
        "f",
        "--json",
    )
    assert json.loads(done.out) == {"id": "good", "fork": "f", "turn": 1, "again": [], "tokens": []}
    assert (done.status, done.err) == (0, "")
    done = shell.run("workflow", "fork", "good", "--from-turn", "0", "--workflow-id", "g")
    assert done.out == "good: g goes on from turn 0; runs again: cli_forked_step#0\n"
    with Engine(database_url) as engine:
        assert engine.handle("f").result(timeout=60) == "firstx"
        assert engine.handle("g").result(timeout=60) == "firstgood"
    assert "forked from  good, turn 1" in shell.run("workflow", "show", "f").out


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (("--from-step", "none#0"), 1, "no step 'none#0' on record"),
        (("--from-turn", "7"), 1, "turns up to 1"),
        (("--from-step", "cli_forked_step#1", "--output", "x"), 2, "--output is no JSON"),
        (("--from-turn", "1", "--output", "1"), 2, "give --from-step"),
        ((), 2, "--from-step --from-turn"),
    ],
)
def test_a_fork_that_cannot_be_made_is_told(shell: Shell, options: tuple[str, ...], status: int, said: str) -> None:
    done = shell.run("workflow", "fork", "good", *options)
    assert (done.status, done.out) == (status, "")
    assert said in done.err


def test_a_retry_says_what_became_of_each(shell: Shell) -> None:
    done = shell.run("workflow", "retry", "bad", "good", "nobody", "--json")
    bad, good, nobody = json.loads(done.out)
    assert (bad["id"], bad["turn"], bad["again"]) == ("bad", 1, ["cli_forked_step#1"])
    assert bad["fork"]
    assert good["error"]["type"] == "WorkflowForkError"
    assert nobody["error"]["type"] == "WorkflowNotFoundError"
    assert done.status == 1
    done = shell.run("workflow", "retry", "bad")
    assert done.out.startswith("bad: ")
    assert (done.status, done.err) == (0, "")
