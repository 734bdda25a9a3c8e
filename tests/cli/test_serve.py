"""``dbosflow serve``: a server with workers beside it, and without."""

from __future__ import annotations

import re
import signal
import sys
from types import ModuleType
from typing import TYPE_CHECKING

import httpx

from dbosflow import Stream
from dbosflow.cli import serve
from tests.http.events import parsed

if TYPE_CHECKING:
    import pytest

    from tests.cli.shell import Command, Shell

APP = """
from dbosflow import Stream, sleep, workflow
words = Stream[str, None]("words")

@workflow
def saying(count: int) -> None:
    writer = words.writer()
    for number in range(count):
        writer.write(f"w{number}")

@workflow
def waiting() -> None:
    words.writer().write("first")
    sleep(1000)

def nobody(request, workflow_id, action):
    return action == "read" and workflow_id == "w"
"""

START = """
import sys
from app import saying, waiting
from dbosflow import Engine

with Engine(executes=False) as engine:
    engine.start(saying.options(workflow_id="w"), 2)
    engine.start(waiting.options(workflow_id="waits"))
"""


def start(shell: Shell, *options: str) -> tuple[Command, str]:
    """A server, and its address."""
    shell.write("app.py", APP)
    server = shell.start("serve", "app", "--port", "0", *options)
    found = re.search(r"http://\S+", server.await_log("serving at "))
    assert found
    return server, found[0]


def test_it_serves_what_its_workers_write_and_stops(shell: Shell) -> None:
    """A client that reads meanwhile is asked to come again."""
    server, url = start(shell)
    assert shell.python("-c", START).end().status == 0
    answer = httpx.get(f"{url}/workflows/w/streams/words", timeout=60)
    assert [event.data for event in parsed(answer.text) if event.event == "chunk"] == ["w0", "w1"]
    assert httpx.get(f"{url}/workflows/w/streams/other", timeout=60).status_code == 404
    assert httpx.get(f"{url}/workflows/w/streams/words", headers={"host": "evil.example"}).status_code == 403
    text = ""
    with httpx.stream("GET", f"{url}/workflows/waits/streams/words", timeout=60) as stream:
        for part in stream.iter_text():
            text += part
            if "first" in text and "retry" not in text[10:]:
                server.signal(signal.SIGTERM)
    assert text.count("retry: ") == 2
    assert server.end().status == 0


def test_it_serves_without_workers(shell: Shell) -> None:
    server, url = start(shell, "--workers", "0", "--stream", "more", "--authorize", "app:nobody")
    assert shell.python("-c", START).end().status == 0
    with httpx.stream("GET", f"{url}/workflows/w/streams/more", timeout=60) as stream:
        assert stream.status_code == 200
    assert httpx.get(f"{url}/workflows/waits/streams/words").status_code == 403
    server.signal(signal.SIGINT)
    assert server.end().status == 130


def test_what_cannot_be_served_is_said(shell: Shell) -> None:
    _, url = start(shell, "--workers", "0")
    taken = shell.run("serve", "app", "--port", url.rpartition(":")[2])
    assert taken.status == 1
    assert "in use" in taken.err
    wrong = shell.run("serve", "app", "--authorize", "app:nothing")
    assert wrong.status == 1
    assert "myapp.web:authorize" in wrong.err


def test_only_what_the_modules_and_their_packages_declare_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing of a library that has streams of its own."""
    found = {}
    for name in ("myapp.workflows", "myapp.web", "library.internals"):
        module = found[name] = ModuleType(name)
        module.__dict__["words"] = Stream[str, None](name)
        monkeypatch.setitem(sys.modules, name, module)
    served = serve._declared(Stream, [found["myapp.workflows"]])
    assert {stream.key for stream in served} == {"myapp.workflows", "myapp.web"}
