"""``workflow show`` for people: the table of what is on record."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from dbosflow import Engine, sleep_async, step, workflow
from tests.support import eventually

if TYPE_CHECKING:
    from tests.cli.shell import Shell

LONG = 7200.0
failed: list[int] = []


@step(max_attempts=3, interval=0)
def second_time_lucky() -> str:
    failed.append(1)
    if len(failed) == 1:
        raise ValueError("not yet")
    return "at last"


@step(max_attempts=2, interval=LONG)
def patient() -> None:
    raise ValueError("not today")


@workflow(name="shown child")
async def child() -> str:
    return "of the child"


@workflow(name="shown")
async def shown() -> None:
    await second_time_lucky.run_async()
    await child.run_async()
    await asyncio.gather(sleep_async(LONG), patient.run_async())


def test_a_table_tells_of_attempts_children_and_sleeps(shell: Shell, database_url: str) -> None:
    """As people count and measure: of how many attempts where that is known, which child, until when, how long."""
    failed.clear()
    with Engine(database_url, grace=0) as engine:
        handle = engine.start(shown.options(workflow_id="w"))
        steps = eventually(lambda: found if len(found := engine.list_steps("w")) == 6 else None)
        assert steps is not None
        (started,) = [one.child_id for one in steps if one.kind == "child"]
        assert {(one.number, one.attempts) for one in steps if one.key.startswith("patient")} == {(1, None)}
        text = shell.run("workflow", "show", "w").out
        handle.cancel()
    rows = [re.split(r"  +", line) for line in text.split("\n\n")[1].splitlines()]
    assert rows[0] == ["SEQ", "STEP", "KIND", "ATTEMPT", "TOOK", "OUTCOME"]
    attempts = [row[3:] for row in rows[1:] if row[1].startswith("second_time_lucky#0")]
    assert [(one[0], one[2]) for one in attempts] == [("1 of 2", "ValueError: not yet"), ("2 of 2", '"at last"')]
    (first,) = [row[3:] for row in rows[1:] if row[1].startswith("patient#0")]
    assert (first[0], first[2]) == ("1", "ValueError: not today")
    kinds = {row[2]: row[3:] for row in rows[1:]}
    assert kinds["child"][2] == f"workflow {started}"
    assert kinds["result"][2] == f'"of the child" of {started}'
    assert kinds["sleep"][0] == "-"
    assert kinds["sleep"][1] == "2 h 0 min"
    assert re.fullmatch(r"until \d{4}-\d\d-\d\d .*", kinds["sleep"][2])
    assert all(row[4][0].isdigit() for row in rows[1:])
