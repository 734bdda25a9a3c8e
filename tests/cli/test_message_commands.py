"""``dbosflow workflow send | ask | events``, ``dbosflow token``, and what ``stream list --all`` shows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, create_token_async, recv_async, requests, set_event_async, workflow

if TYPE_CHECKING:
    from tests.cli.shell import Shell

PATIENCE = 60.0


@workflow(name="cli.talking")
async def talking() -> list[Any]:
    """Receives, replies, and waits for the answer to a token."""
    await set_event_async("state", {"waits": True})
    found: list[Any] = [await recv_async("approval")]
    async for request in requests("double"):
        if request.value == "stop":
            await request.reject(LookupError("no number"))
            break
        await request.reply(2 * request.value)
    token = await create_token_async()
    await set_event_async("token", token.id)
    return [*found, await token.wait_async()]


def test_a_workflow_is_talked_to_from_the_shell(database_url: str, shell: Shell) -> None:
    shell.use(database_url)
    with Engine(database_url) as engine:
        handle = engine.start(talking.options(workflow_id="w"))
        waits = shell.run("workflow", "events", "w", "state", "--wait", "60")
        assert (waits.status, json.loads(waits.out)) == (0, {"waits": True})
        sent = shell.run("workflow", "send", "w", '{"ok": true}', "--topic", "approval", "--json")
        assert json.loads(sent.out) == {"workflow_id": "w", "topic": "approval", "offset": 0}
        assert shell.run("workflow", "ask", "w", "21", "--topic", "double", "--timeout", "60").out == "42\n"
        rejected = shell.run("workflow", "ask", "w", '"stop"', "--topic", "double", "--timeout", "60")
        assert (rejected.status, rejected.out) == (1, "")
        assert "LookupError: no number" in rejected.err
        token = json.loads(shell.run("workflow", "events", "w", "token", "--wait", "60").out)
        resolved = shell.run("token", "resolve", token, "[1]", "--json")
        assert json.loads(resolved.out) == {"workflow_id": "w", "outcome": "resolved"}
        assert handle.result(timeout=PATIENCE) == [{"ok": True}, [1]]
        again = shell.run("token", "reject", token, "too late", "--json")
        assert (again.status, again.out) == (1, "")
        assert json.loads(again.err)["error"]["type"] == "AlreadyAnsweredError"
        events = json.loads(shell.run("workflow", "events", "w", "--json").out)
        assert [(one["name"], one["offset"]) for one in events] == [("state", 0), ("token", 0)]
        assert "NAME" in shell.run("workflow", "events", "w").out
        assert shell.run("stream", "list", "w").out == ""
        assert "dbosflow/inbox/approval" in shell.run("stream", "list", "w", "--all").out
        assert "waits" in shell.run("stream", "tail", "w", "dbosflow/event/state").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("workflow", "send", "w", "yes"), "is not JSON; a text needs quotes"),
        (("workflow", "send", "w", "1"), "there is no workflow 'w'"),
        (("workflow", "events", "w"), "there is no workflow 'w'"),
        (("token", "resolve", "x", "1"), "is no id of a token"),
    ],
)
def test_what_cannot_be_done_is_said(database_url: str, shell: Shell, words: tuple[str, ...], said: str) -> None:
    shell.use(database_url)
    done = shell.run(*words)
    assert done.status != 0
    assert said in done.err
