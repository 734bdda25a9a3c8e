"""What is tried in each situation: workflows of every kind, crashes, and all that can be looked at afterwards."""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from dbosflow import Engine, read_input_async, sleep_async, step, workflow, write_stream_async
from dbosflow.cli.entry import main as command
from dbosflow.errors import ConfigurationError
from dbosflow.testing import crash_at
from tests.behaviour.tables import disorder
from tests.support import with_parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.hostile.situations import Situation

TEXTS = ["héllo 😀", "Ünï-ö", "ﬀ ß İ", "日本", "\\x41 'quoted' \"twice\" $1 %s", "null", ""]
IDS = ["b", "B", "ä", "a-1", "a 1", "_", "Z", "ß"]
_SLEEP = 0.3


@step
async def hostile_said(text: str) -> str:
    """A record of a text."""
    return f"<{text}>"


@workflow
async def hostile_child(text: str) -> str:
    """Ends with a text."""
    return text


@workflow(inputs=["chat"])
async def hostile(texts: list[str]) -> list[Any]:
    """Steps, values, a timer, a child and an input, with the same texts everywhere."""
    found: list[Any] = []
    for text in texts:
        found.append(await hostile_said(text))
        await write_stream_async("clé", text)
    began = datetime.now(UTC).timestamp()
    await sleep_async(_SLEEP)
    child = await hostile_child.start_async(texts[0])
    found.append(await child.result_async())
    found += [item.value async for item in read_input_async("chat") if not item.closed]
    for key in IDS:
        await write_stream_async(key, key)
    return [*found, 0.1 + 0.2, began > 0]


def check(url: str) -> None:
    """Runs all of it; an assertion fails where something came out otherwise than anywhere else."""
    expected = [*(f"<{text}>" for text in TEXTS), TEXTS[0], *TEXTS, 0.1 + 0.2, True]
    with Engine(url, lease=5.0) as engine:
        for point in ("hostile_said#1", "sleep#0"):
            with crash_at(engine, point, point):
                handle = engine.start(hostile.options(workflow_id=point), TEXTS)
                for text in TEXTS:
                    engine.write_stream(point, "chat", text)
                engine.close_stream(point, "chat")
                assert handle.result(timeout=60) == expected
        for child in [engine.start(hostile_child.options(workflow_id=one), one) for one in IDS]:
            assert child.result(timeout=60) == child.workflow_id
    # As if one batch had started them.
    with psycopg.connect(url, autocommit=True, options="-c default_transaction_read_only=off") as connection:
        connection.execute("UPDATE dbosflow.workflow SET created_at = now() WHERE name = 'hostile_child'")
    with Engine(url, executes=False) as client:
        records = [step.output for step in client.list_steps("sleep#0") if step.kind == "step"]
        assert records == [f"<{text}>" for text in TEXTS]
        assert client.read_stream("sleep#0", "clé").read_all() == (TEXTS, True)
        listed = client.list_workflows()
        assert {*IDS, "hostile_said#1", "sleep#0"} <= {info.id for info in listed}
        assert listed == sorted(listed, key=lambda info: (info.created_at, info.id), reverse=True)
        assert [stream.key for stream in client.streams.list("sleep#0")] == sorted([*IDS, "clé", "chat"])
        assert all(abs(datetime.now(UTC) - info.created_at) < timedelta(minutes=10) for info in listed)
        assert client.prune(older_than=3600, dry_run=True) == 0
        assert client.prune(older_than=0) >= len(IDS)
    for words in (["migrate"], ["workflow", "list"], ["doctor"]):
        assert command([*words, "--database-url", url]) == 0
    assert (
        disorder(with_parameters(url, options="-c statement_timeout=0 -c default_transaction_isolation=serializable"))
        == []
    )


@contextmanager
def laid(admin_url: str, situation: Situation) -> Iterator[str]:
    """A database in that situation; clients that look from outside are in it, too."""
    name = f"hostile_{uuid4().hex}"
    before = {key: os.environ.get(key) for key in situation.environment}
    with psycopg.connect(admin_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE template0 {situation.made}'.encode())
        try:
            for setting, value in situation.settings.items():
                whose = sql.SQL("DATABASE {}").format(sql.Identifier(name))
                if situation.of_role:
                    whose = sql.SQL("ROLE current_user IN {}").format(whose)
                lists = setting in {"search_path", "restrict_nonsystem_relation_kind"}
                shown = sql.SQL(value) if lists and setting == "search_path" else sql.Literal(value)
                connection.execute(
                    sql.SQL("ALTER {} SET {} TO {}").format(whose, sql.Identifier(setting.lower()), shown)
                )
            os.environ.update(situation.environment)
            yield with_parameters(admin_url, dbname=name)
        finally:
            for key, old in before.items():
                os.environ.pop(key)
                if old is not None:
                    os.environ[key] = old
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def refused(url: str) -> None:
    """Opening it raises an error that says why not; nothing is made in it."""
    for opening in (Engine(url).open, lambda: asyncio.run(Engine(url).open_async())):
        with pytest.raises(ConfigurationError, match="ENCODING 'UTF8'"):
            opening()
    assert command(["migrate", "--database-url", url]) == 1
    assert command(["doctor", "--database-url", url]) == 1


def tried(admin_url: str, situation: Situation) -> str | None:
    """Tries a situation; why it could not be tried, if this server does not have it."""
    with psycopg.connect(admin_url) as connection:
        known = {name for (name,) in connection.execute("SELECT name FROM pg_settings")}
    if missing := set(situation.settings) - known:
        kept = {name: value for name, value in situation.settings.items() if name in known}
        if not kept:
            return f"this server has no {', '.join(missing)}"
        situation = type(situation)(situation.name, situation.made, kept, situation.of_role, situation.environment)
    try:
        with laid(admin_url, situation) as url:
            (refused if situation.refused else check)(url)
    except (psycopg.errors.FeatureNotSupported, psycopg.errors.SyntaxError, psycopg.errors.WrongObjectType) as error:
        if "CREATE DATABASE" in str(error) or "ICU" in str(error) or "option" in str(error):
            return str(error).splitlines()[0]
        raise
    return None
