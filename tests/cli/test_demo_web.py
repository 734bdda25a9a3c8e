"""``dbosflow demo --web``: a server, its workers, and a chat whose worker is killed in the middle of an answer."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import httpx
import pytest

from dbosflow.cli.demo import chat
from tests.http.event_source import PATIENCE, Page
from tests.support import eventually_async

if TYPE_CHECKING:
    from tests.cli.shell import Shell


async def kill_in_the_middle(client: httpx.AsyncClient, chat_id: str, shown: Page) -> None:
    """Asks the page's server to kill the worker that writes."""
    await eventually_async(lambda: shown.processes and len(shown.text) > 100, timeout=PATIENCE)
    assert (await client.post(f"/processes/{shown.processes[-1]}/kill", timeout=PATIENCE)).status_code == 204


async def talk(url: str) -> Page:
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as client:
        assert "<title>" in (await client.get("/")).text
        chat_id = (await client.post("/chats")).json()["id"]
        await client.post(f"/chats/{chat_id}/questions", json={"text": "Tell me a story."})
        shown = Page()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(shown.read(client, f"/workflows/{chat_id}/streams/chat", answers=1))
            tasks.create_task(kill_in_the_middle(client, chat_id, shown))
        return shown


def test_a_chat_outlives_its_worker(shell: Shell) -> None:
    demo = shell.start("demo", "--web", "--no-browser", "--pace", "60")
    url = demo.await_line("chat").split()[-1]
    shown = asyncio.run(talk(url))
    assert shown.text == "".join(f"{word} " for words in chat.answer_to(0) for word in words)
    assert len(shown.processes) == 2
    demo.signal(signal.SIGTERM)
    assert demo.end().status == 0
    assert shell.processes() == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("demo", "--port", "80"), "give --web, too"),
        (("demo", "--no-browser"), "give --web, too"),
        (("demo", "--web", "--seed", "1"), "leave FILE, --kill-at and --seed out"),
        (("demo", "--web", "some.txt"), "leave FILE, --kill-at and --seed out"),
    ],
)
def test_options_that_do_not_fit_are_refused(shell: Shell, words: tuple[str, ...], said: str) -> None:
    done = shell.run(*words)
    assert done.status == 2
    assert said in done.err
