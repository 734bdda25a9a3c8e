"""Keys are replaced while workflows run, and what was stored before is encrypted, too."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine, Schedule, recv_async, step, workflow, write_stream_async
from dbosflow.codecs import ENCRYPTION_KEYS_VARIABLE, Compress, Encrypt
from dbosflow.errors import ConfigurationError
from tests.behaviour.tables import rows
from tests.cli.shell import Shell
from tests.codecs.keys import CHAIN, MARKER, NEW, OLD, PAYLOADS, marked_rows, plain_payloads
from tests.codecs.test_everything import LONG, child, in_everything, read

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 60.0
ROTATED = [Compress(above=300), Encrypt({"new": NEW, "old": OLD})]
AFTER = [Compress(above=300), Encrypt({"new": NEW})]


def under(url: str, key_id: str) -> int:
    """How many payload columns hold something that a key encrypts."""
    with psycopg.connect(url) as connection:
        count = 0
        for table, columns in PAYLOADS.items():
            for column in columns:
                query: Any = f"SELECT count(*) FROM dbosflow.{table} WHERE {column}::text LIKE %s"
                ((found,),) = connection.execute(query, (f'%"aes-gcm-siv:{key_id}"]%',)).fetchall()
                count += found
    return count


@step
async def doubled(number: int) -> str:
    await write_stream_async("numbers", number)
    return f"{MARKER} {2 * number}"


@workflow(name="codecs.counting")
async def counting() -> int:
    number = 0
    while await recv_async() != "stop":
        await doubled(number)
        number += 1
    return number


async def test_everything_comes_under_the_new_key(database_url: str) -> None:
    """Of each kind of payload; then the old key is needed no more, and what was compressed still is."""
    async with Engine(database_url, codecs=CHAIN) as engine:
        await in_everything(engine, database_url)
    before = under(database_url, "old")
    async with Engine(database_url, codecs=ROTATED, executes=False) as engine:
        would = await engine.workflows.reencrypt_async(dry_run=True)
        assert (under(database_url, "new"), would.unreadable) == (0, 0)
        done = await engine.workflows.reencrypt_async(batch=7)
        assert done.rows >= would.rows > 50
        assert (await engine.workflows.reencrypt_async()).rows == 0
    assert (under(database_url, "old"), under(database_url, "new")) == (0, before)
    compressed = "SELECT 1 FROM dbosflow.workflow WHERE input::text LIKE %s"
    assert rows(database_url, compressed, '{"dbosflow/codec":["zlib",%')
    async with Engine(database_url, codecs=AFTER) as engine:
        assert (await engine.handle("w").result_async(timeout=PATIENCE))[0] == MARKER
        assert [one["value"] for one in await read(engine, "w", "handled.dead")] == [f"bad {LONG}"]
        with pytest.raises(LookupError, match=MARKER):
            await engine.handle("f").result_async()


async def test_what_waits_comes_under_the_new_key(database_url: str) -> None:
    """In both tables of what transactions have asked for, and in a schedule: else it would be lost with the old key."""
    async with Engine(database_url, codecs=CHAIN, executes=False) as engine:
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            await engine.send_in_async(connection, "nobody", MARKER)
            await engine.start_in_async(connection, child.options(workflow_id="s", queue="q"), MARKER)
            for key in ("a", "b"):
                spec = child.options(workflow_id=key, queue="q", dedup_key=key)
                await engine.start_in_async(connection, spec, f"{MARKER} {key}")
        await engine.schedules.apply_async(Schedule("hourly", child, every=3600, args={"text": MARKER}, queue="q"))
    before = under(database_url, "old")
    assert before == 5
    async with Engine(database_url, codecs=ROTATED, executes=False) as engine:
        assert (await engine.workflows.reencrypt_async(batch=1)).rows == before
    assert (under(database_url, "old"), under(database_url, "new")) == (0, before)
    async with Engine(database_url, codecs=AFTER) as engine:
        serving = asyncio.create_task(engine.run_worker_async("q"))
        assert await engine.handle("b", child).result_async(timeout=PATIENCE) == {"child": f"{MARKER} b"}
        serving.cancel()


async def test_it_runs_beside_workers_and_loses_nothing(database_url: str) -> None:
    """A workflow that writes all the while goes on, before and after a takeover."""
    async with Engine(database_url, codecs=CHAIN) as older:
        handle = await older.start_async(counting.options(workflow_id="c"))
        for _ in range(20):
            await older.send_async("c", MARKER)
        await older.read_stream_async("c", "numbers").__anext__()
    async with Engine(database_url, codecs=ROTATED) as newer:
        done = asyncio.create_task(newer.workflows.reencrypt_async(batch=3))
        for _ in range(20):
            await newer.send_async("c", MARKER)
        await done
        await newer.workflows.reencrypt_async()
        assert under(database_url, "old") == 0
    async with Engine(database_url, codecs=AFTER) as after:
        await after.send_async("c", "stop")
        assert await after.handle(handle.workflow_id).result_async(timeout=PATIENCE) == 40
        assert await read(after, "c", "numbers") == list(range(40))


async def test_what_was_stored_without_a_key_is_encrypted_with_its_checksums_gone(database_url: str) -> None:
    """And a row that cannot be read stays as it is, and is counted."""
    async with Engine(database_url, codecs=()) as engine:
        await in_everything(engine, database_url)
        with pytest.raises(ConfigurationError, match="no codec that encrypts"):
            await engine.workflows.reencrypt_async()
    lost = """{"dbosflow/codec":["aes-gcm-siv:lost"],"data":"AAAA"}"""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE dbosflow.workflow SET input = %s WHERE id = 'x'", (lost,))
    assert marked_rows(database_url)
    async with Engine(database_url, codecs=CHAIN, executes=False) as engine:
        assert (await engine.workflows.reencrypt_async()).unreadable == 1
        assert (await engine.handle("w").result_async())[0] == MARKER
    assert marked_rows(database_url) == []
    assert [row for row in plain_payloads(database_url) if row[2] not in {"rollback", "continued"}] == []
    assert rows(database_url, "SELECT 1 FROM dbosflow.stream_block WHERE checksum IS NOT NULL") == []


def test_the_command_says_what_it_has_done(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the keys of the environment, which it does not print; without any it says what to do."""
    with Engine(database_url, codecs=[Compress(above=10)]) as engine:
        engine.start(counting.options(workflow_id="c"))
        engine.send("c", "stop" * 100)
        engine.handle("c").cancel()
    shell = Shell(tmp_path)
    shell.use(database_url)
    refused = shell.run("reencrypt")
    assert (refused.status, ENCRYPTION_KEYS_VARIABLE in refused.err) == (1, True)
    monkeypatch.setenv(ENCRYPTION_KEYS_VARIABLE, f"new:{NEW},old:{OLD}")
    would = shell.run("reencrypt", "--dry-run")
    done = shell.run("reencrypt", "--batch", "2")
    assert done.status == 0
    assert done.out == would.out.replace("would be ", "")
    assert NEW not in done.out + done.err
    assert shell.run("reencrypt", "--json").out == '{"rows": 0, "unreadable": 0}\n'
