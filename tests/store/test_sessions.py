"""What a session is set to: the same for each, whatever a role, a database, a URL or the environment says.

Where the way to the server takes no options it is set by a statement, if the session is ours; if it is a pooler's, what
is wrong is refused. A database that cannot hold our texts is refused when it is opened.
"""

from __future__ import annotations

import asyncio
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool

from dbosflow import Engine, step, workflow
from dbosflow._sessions import _EVERY, NOTIFIER, POOL, READER, WORKER, differing, wanted, wrong
from dbosflow._store import migrate
from dbosflow._store.connect import PoolConnection, connect, connect_async
from dbosflow.errors import ConfigurationError
from tests.costs.wire import wire
from tests.pretending import WORDS, Dropping, Older, Refusing
from tests.store.settings import DECIDED, HOSTILE
from tests.support import with_parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Execute = Callable[..., list[tuple[Any, ...]]]


def settings_of(connection: psycopg.Connection[Any], names: set[str]) -> dict[str, str]:
    query = "SELECT name, current_setting(name, true) FROM unnest(%s::text[]) AS name"
    return dict(connection.execute(query, (sorted(names),)).fetchall())


def by_a_call(url: str, names: set[str]) -> dict[str, str]:
    with connect(url) as connection:
        return settings_of(connection, names)


async def asked(connection: psycopg.AsyncConnection[Any], names: set[str]) -> dict[str, str]:
    query = "SELECT name, current_setting(name, true) FROM unnest(%s::text[]) AS name"
    return dict(await (await connection.execute(query, (sorted(names),))).fetchall())


def on_a_loop(url: str, names: set[str]) -> dict[str, str]:
    async def main() -> dict[str, str]:
        async with await connect_async(url) as connection:
            return await asked(connection, names)

    return asyncio.run(main())


def in_a_pool(url: str, names: set[str]) -> dict[str, str]:
    async def main() -> dict[str, str]:
        pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
            url, min_size=1, open=False, timeout=20, connection_class=PoolConnection, kwargs={"autocommit": True}
        )
        async with pool, pool.connection() as connection:
            return await asked(connection, names)

    return asyncio.run(main())


ASKERS = [by_a_call, on_a_loop, in_a_pool]


@pytest.fixture(params=ASKERS)
def ask(request: pytest.FixtureRequest) -> Callable[[str, set[str]], dict[str, str]]:
    """The settings of a session, for each way in which one is made."""
    found: Callable[[str, set[str]], dict[str, str]] = request.param
    return found


def alter(url: str, settings: dict[str, str]) -> None:
    """Sets them for the database."""
    with psycopg.connect(url, autocommit=True) as connection:
        name = sql.Identifier(str(conninfo_to_dict(url)["dbname"]))
        for setting, value in settings.items():
            shown = sql.SQL(value) if setting == "search_path" else sql.Literal(value)
            statement = sql.SQL("ALTER DATABASE {} SET {} TO {}")
            connection.execute(statement.format(name, sql.Identifier(setting.lower()), shown))


@pytest.fixture
def hostile_url(database_url: str) -> str:
    """A database whose settings are all wrong."""
    alter(database_url, HOSTILE)
    return database_url


def unlike(found: dict[str, str]) -> dict[str, str]:
    return differing(wanted(), found)


def test_every_server_setting_that_a_user_may_change_is_decided_for_sessions(database_url: str) -> None:
    """Those that change what our statements mean are set; of each other one somebody has looked that it does not."""
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT name FROM pg_settings WHERE context = 'user'").fetchall()
    ours = {*_EVERY, *WORKER, *POOL, *READER, *NOTIFIER, "idle_in_transaction_session_timeout"}
    assert {name for (name,) in rows} - DECIDED - ours == set()


def test_a_session_is_what_it_has_to_be_whatever_its_database_says(
    hostile_url: str, ask: Callable[[str, set[str]], dict[str, str]]
) -> None:
    """Twice: the first look at a server is another way than the later ones."""
    with psycopg.connect(hostile_url) as plain:
        before = settings_of(plain, set(HOSTILE))
    assert set(differing(wanted(), before)) == set(HOSTILE)
    for _ in range(2):
        assert unlike(ask(hostile_url, set(_EVERY))) == {}


def test_neither_the_environment_nor_the_url_overrides_a_sessions_settings(
    database_url: str, ask: Callable[[str, set[str]], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """libpq sends some variables apart from the options, behind them."""
    options = " ".join(f"-c {name}={value.replace(' ', '')}" for name, value in HOSTILE.items())
    monkeypatch.setenv("PGOPTIONS", options)
    monkeypatch.setenv("PGDATESTYLE", "German")
    monkeypatch.setenv("PGTZ", "Asia/Kolkata")
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    for url in (database_url, with_parameters(database_url, options=options, client_encoding="LATIN1")):
        for _ in range(2):
            assert unlike(ask(url, set(_EVERY))) == {}


def test_the_urls_own_options_hold_for_all_that_we_do_not_decide(
    database_url: str, ask: Callable[[str, set[str]], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of PGOPTIONS, too, where the URL has none; an end that would swallow the next word does not."""
    assert ask(with_parameters(database_url, options="-c work_mem=77MB \\"), {"work_mem"}) == {"work_mem": "77MB"}
    monkeypatch.setenv("PGOPTIONS", "--work-mem=78MB")
    assert ask(database_url, {"work_mem"}) == {"work_mem": "78MB"}


@pytest.mark.parametrize("options", ["", "-c statement_timeout=1min -c work_mem=77MB"])
def test_setting_up_a_session_costs_no_round_trip(hostile_url: str, options: str) -> None:
    """But for the first of a process with a server: what it is to be stands in its first message, behind the user's."""
    with wire(with_parameters(hostile_url, options=options)) as line:
        for expected in (["session.settings"], [], []):
            place = len(line.messages)
            connect(line.url, pooled=True).close()
            said = [one.statement for one in line.messages[place:] if one.kind == "execute"]
            assert said == expected
        connect(line.url).close()
        assert line.sessions[-1].role == "other"
        assert [one.statement for one in line.messages if one.kind == "execute"] == ["session.settings"]


@pytest.mark.parametrize("words", WORDS)
def test_a_session_is_set_by_a_statement_where_no_options_are_taken(
    hostile_url: str, words: str, ask: Callable[[str, set[str]], dict[str, str]]
) -> None:
    """As behind a pooler in session mode. That options are refused is learnt once."""
    with closing(Refusing(hostile_url, words)) as between:
        for _ in range(3):
            assert unlike(ask(between.url, set(_EVERY))) == {}
        assert between.refused == 1


@pytest.mark.parametrize(
    "words",
    [
        'unrecognized configuration parameter "transaction_timeout"',
        "unbekannter Konfigurationsparameter »transaction_timeout«",
        "paramètre de configuration « transaction_timeout » non reconnu",
    ],
)
def test_a_server_that_is_older_than_the_one_before_takes_connections_too(
    hostile_url: str, words: str, ask: Callable[[str, set[str]], dict[str, str]]
) -> None:
    """After a restore on an older one, say. What it does not know it says in the language of its ``lc_messages``."""
    with closing(Older(hostile_url, words)) as between:
        for _ in range(3):
            assert unlike(ask(between.url, set(_EVERY))) == {}


def test_a_session_is_set_by_a_statement_where_options_are_dropped(
    hostile_url: str, ask: Callable[[str, set[str]], dict[str, str]]
) -> None:
    """Nobody says so: what is in force is looked at."""
    with closing(Dropping(hostile_url)) as between:
        for _ in range(2):
            assert unlike(ask(between.url, set(_EVERY))) == {}


@pytest.mark.parametrize("way", [Refusing, Dropping])
def test_a_poolers_sessions_are_left_as_they_are(hostile_url: str, way: type[Refusing | Dropping]) -> None:
    """What is set in them would be set for the next client."""
    with closing(way(hostile_url)) as between:
        for _ in range(2):
            with connect(between.url, pooled=True) as connection:
                found = settings_of(connection, set(HOSTILE))
            assert found["DateStyle"].startswith("German")
            assert found["statement_timeout"] == "1min"


POOLERS_OWN = {"client_encoding"}
"""What a client says by itself, and poolers pass on."""


@pytest.mark.parametrize(
    ("name", "value"), [pair for pair in HOSTILE.items() if wrong(dict([pair])) and pair[0] not in POOLERS_OWN]
)
def test_behind_a_pooler_a_wrong_setting_is_refused_with_what_mends_it(
    database_url: str, name: str, value: str, execute: Execute
) -> None:
    """The statements that the error has, run as they are, are what was missing."""
    alter(database_url, {name: value})
    with closing(Refusing(database_url)) as between:
        with pytest.raises(ConfigurationError, match=f"{name} is ") as raised, Engine(between.url, pooled=True):
            pass
        message = str(raised.value)
        execute(message.partition(" Run ")[2].partition(" Then have")[0])
        with Engine(between.url, pooled=True, executes=False):
            pass


def test_a_server_as_it_comes_is_served_behind_a_pooler(database_url: str) -> None:
    """The defaults of Postgres fit."""
    with psycopg.connect(database_url) as connection:
        assert wrong(settings_of(connection, set(_EVERY))) == {}


@contextmanager
def made(admin_url: str, form: str) -> Iterator[str]:
    """A database made in a form of its own."""
    name = f"dbosflow_test_{uuid4().hex}"
    with psycopg.connect(admin_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE template0 {form}'.encode())
        try:
            yield with_parameters(admin_url, dbname=name)
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP", "WIN1252"])
def test_a_database_of_another_encoding_is_refused_in_words(admin_url: str, encoding: str) -> None:
    """By all that connect: an engine, a migration, `doctor`; each time, not only the first."""
    with made(admin_url, f"ENCODING '{encoding}' LOCALE 'C'") as url:
        for _ in range(2):
            for opening in (
                partial(by_a_call, url, set()),
                partial(on_a_loop, url, set()),
                partial(migrate.migrate, url),
                Engine(url).open,
            ):
                with pytest.raises(ConfigurationError, match=f"encoding {encoding}.*ENCODING 'UTF8'"):
                    opening()
        with connect(url, any_encoding=True) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


@step
def greet(name: str) -> str:
    """A record with texts that few encodings have."""
    return f"héllo 😀 {name}"


@workflow
def greeting_in_a_session(name: str) -> str:
    """One of them."""
    return greet(name)


def test_an_engine_works_where_everything_is_set_against_it(hostile_url: str) -> None:
    """Direct, and behind a pooler in session mode; also the second half, which reads what is on record."""
    with Engine(hostile_url) as engine:
        engine.run(greeting_in_a_session.options(workflow_id="one"), "é")
    with closing(Refusing(hostile_url)) as between, Engine(between.url, executes=False) as engine:
        assert engine.list_steps("one")[0].output == "héllo 😀 é"
        assert engine.handle("one").info().created_at.year > 2000
