"""A password is nowhere but where it was given: in no error, log, repr or command line, whatever goes wrong."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import traceback
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg
import pytest

from dbosflow import Engine, workflow
from dbosflow._runtime.process.database import find_database
from dbosflow.cli import main
from dbosflow.config import DATABASE_URL_VARIABLE, Settings
from dbosflow.errors import ConfigurationError, DbosflowError
from tests.cli.shell import Shell
from tests.store.test_connect import error_response, impostor
from tests.support import eventually, with_parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECRET = "hunter2"
PASSWORD = f"pa ss/{SECRET}@%'&?"
ENCODED = quote(PASSWORD, safe="")
IN_QUOTES = PASSWORD.replace("'", r"\'")

URLS = {
    "a URL": f"postgresql://ann:{SECRET}@127.0.0.1:1/shop",
    "percent-encoded": f"postgresql://ann:{ENCODED}@127.0.0.1:1/shop",
    "a parameter": f"postgresql://ann@127.0.0.1:1/shop?password={ENCODED}",
    "keywords": f"host=127.0.0.1 port=1 user=ann dbname=shop password='{IN_QUOTES}'",
    "several hosts": f"postgresql://ann:{ENCODED}@127.0.0.1:1,127.0.0.1:2/shop",
    "the key's password": f"postgresql://ann@127.0.0.1:1/shop?sslpassword={SECRET}",
    "a bare @": f"postgresql://ann:x@{SECRET}@127.0.0.1:1/shop",
    "a bare /": f"postgresql://ann:x/{SECRET}@127.0.0.1:1/shop",
    "a bare / behind a number": f"postgresql://ann:1/{SECRET}@127.0.0.1:1/shop",
    "no scheme of ours": f"mysql://ann:{SECRET}@127.0.0.1/shop",
    "a broken escape": f"postgresql://ann:{SECRET}%zz@127.0.0.1:1/shop",
    "an unknown keyword": f"host=127.0.0.1 port=1 pass={SECRET}",
    "an unknown parameter": f"postgresql://ann:{SECRET}@127.0.0.1:1/shop?colour=red",
    "a wrong port": f"postgresql://ann:{SECRET}@127.0.0.1:port/shop",
}

COMMANDS = [
    ("workflow", "list"),
    ("workflow", "show", "x"),
    ("workflow", "cancel", "x"),
    ("stream", "tail", "x", "y"),
    ("prune", "--older-than", "1d"),
    ("migrate",),
    ("migrate", "--sql"),
    ("health",),
    ("doctor",),
]


@workflow
def keeps_a_secret() -> int:
    return 1


@pytest.fixture(autouse=True)
def _nothing_is_told(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """All that is logged or printed during a test, at any level, is without the password."""
    monkeypatch.delenv(DATABASE_URL_VARIABLE, raising=False)
    monkeypatch.setattr("dbosflow.cli.logs.set_up", lambda **_: None)
    with caplog.at_level(logging.DEBUG):
        yield
    shown = capsys.readouterr()
    assert SECRET not in shown.out + shown.err
    for record in [*caplog.get_records("call"), *caplog.get_records("teardown")]:
        assert SECRET not in logging.Formatter("%(message)s %(args)s").format(record)


def said_by(error: BaseException) -> str:
    """What a log would hold of it, with its causes."""
    return "".join(traceback.format_exception(error)) + repr(error)


def open_sync(url: str) -> None:
    with Engine(url, connect_timeout=0.2):
        pass


def open_async(url: str) -> None:
    async def run() -> None:
        async with Engine(url, connect_timeout=0.2):
            pass

    asyncio.run(run())


@pytest.mark.parametrize("how", [open_sync, open_async])
@pytest.mark.parametrize("name", URLS)
def test_an_engine_that_cannot_open_tells_no_password(name: str, how: Callable[[str], None]) -> None:
    """Nobody there, or a URL that cannot be read: the error, its causes and the log at DEBUG are without it."""
    with pytest.raises(DbosflowError) as raised:
        how(URLS[name])
    assert SECRET not in said_by(raised.value)


@pytest.mark.parametrize("name", URLS)
def test_a_url_of_the_environment_is_as_secret(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finding it logs where it leads, also where it leads nowhere."""
    monkeypatch.setenv(DATABASE_URL_VARIABLE, URLS[name])
    database = find_database()
    assert SECRET not in repr(database)
    database.close()
    with pytest.raises(DbosflowError) as raised:
        Engine(connect_timeout=0.2).open()
    assert SECRET not in said_by(raised.value)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["", "json"])
def test_no_command_tells_a_password(command: tuple[str, ...], form: list[str]) -> None:
    """With --verbose, which shows the traceback, and as JSON."""
    answer = error_response("28P01", 'password authentication failed for user "ann"')
    with impostor(*[answer] * 4) as server:
        url = server.url.replace("hunter2", ENCODED)
        assert main([*command, "--verbose", "--database-url", url, *form]) == 1


@pytest.mark.parametrize("place", ["PGPASSWORD", "PGPASSFILE"])
def test_a_password_that_libpq_finds_is_as_secret(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In libpq's variable, or in a password file, whose line is never shown."""
    file = tmp_path / "pgpass"
    file.write_text(f"*:*:*:*:{SECRET}\n")
    file.chmod(0o600)
    monkeypatch.setenv(place, SECRET if place == "PGPASSWORD" else str(file))
    answer = error_response("28P01", 'password authentication failed for user "ann"')
    with impostor(*[answer] * 4) as server:
        url = server.url.replace(":hunter2", "")
        for how in (open_sync, open_async):
            with pytest.raises(ConfigurationError) as raised:
                how(url)
            assert SECRET not in said_by(raised.value)
        assert main(["doctor", "--verbose", "--database-url", url]) == 1


def test_a_running_engine_that_loses_its_server_tells_no_password(database_url: str) -> None:
    """The pool, the journal, LISTEN and the renewer come back again and again, and say so."""
    url = with_parameters(database_url, sslpassword=SECRET, application_name="losing")
    with Engine(url, listen_url=url) as engine:
        assert engine.run(keeps_a_secret) == 1
        with psycopg.connect(database_url, autocommit=True) as connection:
            ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'losing'"
            assert connection.execute(ended).fetchone() != (0,)
        assert engine.run(keeps_a_secret) == 1
        assert SECRET not in repr(engine)
        assert SECRET not in repr(engine.handle("x"))


def test_a_listen_url_is_as_secret(database_url: str) -> None:
    """Its server is away all the time."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    url = f"postgresql://ann:{ENCODED}@127.0.0.1:{port}/shop"
    with Engine(database_url, listen_url=url, connect_timeout=0.2) as engine:
        assert engine.run(keeps_a_secret) == 1


def test_settings_show_no_url() -> None:
    """They are what people print when they look for a fault."""
    assert SECRET not in repr(Settings(listen_url=f"postgresql://ann:{SECRET}@db/shop"))
    assert SECRET not in repr(Engine(f"postgresql://ann:{SECRET}@db/shop"))


def test_no_process_that_a_worker_starts_has_it_in_its_command_line(tmp_path: Path) -> None:
    """Everybody on the machine can read command lines; and the log of all of them is without it."""
    shell = Shell(tmp_path)
    try:
        shell.write("secretive.py", "from dbosflow import workflow\n@workflow\ndef kept(): ...\n")
        shell.use(f"postgresql://ann:{ENCODED}@127.0.0.1:1/shop")
        command = shell.start("worker", "secretive", "--processes", "2", "--verbose")
        said = command.await_log("worker processes:")
        eventually(lambda: len(shell.processes()) == 3)
        for pid in shell.processes():
            assert SECRET not in Path(f"/proc/{pid}/cmdline").read_bytes().decode()
        command.signal(signal.SIGTERM)
        done = command.end()
        assert SECRET not in said + done.out + done.err
        assert SECRET in os.fsdecode(shell.environment[DATABASE_URL_VARIABLE])
    finally:
        shell.close()
