"""Servers and workers that are killed: one workflow for a key, and the frames that an undisturbed run gives."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from dbosflow import Engine, workflow, write_stream, write_stream_async
from dbosflow.config import DATABASE_URL_VARIABLE
from dbosflow.http import Guards, expose
from dbosflow.testing import assert_crash_safe, crash_at, run_stream
from tests.http.endpoints import program
from tests.http.events import Received, parsed
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
MODULE = "tests.http.endpoints.program"
WHOLE = ["word 0", "in step 0", "in step 1", "word 1", "in step 0", "in step 1"]


class Site:
    """A server and its workers, as processes, at one address."""

    def __init__(self, url: str, directory: Path) -> None:
        self._environment = {**os.environ, DATABASE_URL_VARIABLE: url, "PYTHONPATH": str(ROOT)}
        self._log = directory / "log"
        self._processes: list[subprocess.Popen[bytes]] = []
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.port = taken.getsockname()[1]
        self.base = f"http://127.0.0.1:{self.port}"

    def worker(self) -> subprocess.Popen[bytes]:
        """Starts a worker."""
        return self._start("worker", MODULE)

    def server(self, **environment: str) -> subprocess.Popen[bytes]:
        """Starts a server, and waits until it answers."""
        process = self._start("serve", MODULE, f"--port={self.port}", "--workers=0", **environment)
        eventually(lambda: process.poll() is None and self._answers())
        return process

    def close(self) -> None:
        """Ends all processes."""
        for process in self._processes:
            process.kill()
            process.wait()

    def _start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "dbosflow", *arguments],
                cwd=ROOT,
                env={**self._environment, **environment},
                stdout=log,
                stderr=log,
            )
        self._processes.append(process)
        return process

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.base}/").status_code > 0
        except httpx.TransportError:
            return False


@pytest.fixture
def site(database_url: str, tmp_path: Path) -> Iterator[Site]:
    """A site without processes yet."""
    with ExitStack() as resources:
        site = Site(database_url, tmp_path)
        resources.callback(site.close)
        yield site


def chunks(events: list[Received]) -> list[Any]:
    """The values that count."""
    found: dict[int | None, Any] = {}
    for one in events:
        if one.event == "chunk":
            assert one.id not in found
            found[one.id] = one.data
        elif one.event == "rollback":
            for first, stop in one.data["ranges"]:
                found = {place: data for place, data in found.items() if place not in range(first, stop)}
    return list(found.values())


def test_a_server_that_dies_before_its_answer_has_started_one_workflow(site: Site, tmp_path: Path) -> None:
    """The client sends its request again, with the same key, and is answered with the frames of that workflow."""
    site.worker()
    mark = tmp_path / "dies"
    mark.touch()
    server = site.server(**{program.MARK: str(mark)})
    request: dict[str, Any] = {"json": {"name": "a"}, "headers": {"Idempotency-Key": "k"}}
    with pytest.raises(httpx.TransportError):
        httpx.post(f"{site.base}/tellings", **request, timeout=60)
    assert server.wait(60) == -9
    site.server()
    with Engine(site._environment[DATABASE_URL_VARIABLE], executes=False) as engine:
        (started,) = engine.list_workflows()
        for _ in range(2):
            engine.send(started.id, None, "go")
        answer = httpx.post(f"{site.base}/tellings", **request, timeout=60)
        assert answer.headers["workflow-id"] == started.id
        assert chunks(parsed(answer.text)) == WHOLE
        assert len(engine.list_workflows()) == 1


def test_a_client_reads_on_over_the_deaths_of_workers_and_servers(site: Site) -> None:
    """Its transcript is that of an undisturbed run, and the final is the same for each reader."""
    workers = [site.worker()]
    server = site.server()
    text = ""
    with (
        httpx.Client(base_url=site.base, timeout=60) as client,
        Engine(site._environment[DATABASE_URL_VARIABLE], executes=False) as engine,
    ):
        with client.stream("POST", "/tellings", json={"name": "a"}) as answer:
            where, started = answer.headers["content-location"], answer.headers["workflow-id"]
            parts = answer.iter_text()
            while "in step 1" not in text:
                text += next(parts)
            workers[0].kill()
            workers.append(site.worker())
            engine.send(started, None, "go")
            while "word 1" not in text:
                text += next(parts)
            server.kill()
            with pytest.raises(httpx.TransportError):
                text += "".join(parts)
        site.server()
        text = text[: text.rfind("\n\n") + 2]  # what was cut off in the middle does not count
        engine.send(started, None, "go")
        last = max(one.id for one in parsed(text) if one.id is not None)
        rest = parsed(client.get(where, headers={"Last-Event-ID": str(last)}).text)
        assert chunks(parsed(text) + rest) == WHOLE
        again = parsed(client.get(where).text)
        assert chunks(again) == WHOLE
        assert rest[-1] == again[-1]
        assert rest[-1].data == {"final": f"a by {workers[1].pid}"}


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_guards_behind_the_body_are_on_record_once(database_url: str, when: Any) -> None:
    """Wherever the worker dies: what was recorded first is what each reader gets, and no guard is called after that."""
    calls: list[str] = []

    @workflow(name="killed.plain")
    async def plain(text: str) -> str:
        return text

    def counted(text: str) -> str:
        calls.append(text)
        return f"{text} {len(calls)}"

    endpoint = expose(plain, f"/plain/{when}", mode="aggregate", guards=Guards(after=[counted]))
    with Engine(database_url, grace=0.0) as engine:
        with crash_at(engine, "w", "after_guards#0", when=when):
            handle = engine.start(replace(endpoint.spec, workflow_id="w"), "a")
            final = handle.result(timeout=60)
        assert len(calls) == (2 if when == "before" else 1)
        assert final == f"a {len(calls)}"
        assert len([one for one in engine.list_steps("w") if one.key == "after_guards#0"]) == 1


@pytest.mark.usefixtures("server_of_the_kit")
def test_an_endpoint_is_safe_from_crashes_at_each_of_its_operations() -> None:
    """Streams, the guards' step, the close with the final, and the end; for a sync body, too."""

    @workflow(name="killed.loop")
    async def on_loop(text: str) -> str:
        await write_stream_async("words", text)
        return text

    @workflow(name="killed.thread")
    def on_thread(text: str) -> str:
        write_stream("words", text)
        return text

    for target in (on_loop, on_thread):
        path = f"/safe/{target.definition.name}"
        endpoint = expose(target, path, stream=program.words, guards=Guards(after=[lambda text: f"{text}!"]))
        assert run_stream(endpoint, "a").final == "a!"
        report = assert_crash_safe(endpoint.spec, "a")
        assert report.points >= 8
        assert (report.missed, report.not_compared) == ((), ())
