"""URLs as SQLAlchemy has them: read as libpq would, or refused by the name of what has no equivalent."""

from __future__ import annotations

import pytest
from psycopg.conninfo import conninfo_to_dict

from dbosflow import Engine
from dbosflow._runtime.process.database import find_database
from dbosflow._store.connect import connect
from dbosflow._store.urls import understood
from dbosflow.cli.entry import main
from dbosflow.errors import ConfigurationError
from tests.support import with_parameters

ANN = {"user": "ann", "password": "p@ss/1", "host": "db", "dbname": "shop"}
ANNS = "ann:p%40ss%2F1@db"


@pytest.mark.parametrize(
    ("url", "read"),
    [
        (f"postgresql+psycopg://{ANNS}/shop", ANN),
        (f"postgresql+psycopg2://{ANNS}/shop", ANN),
        (f"postgresql+psycopg2cffi://{ANNS}/shop", ANN),
        (f"postgresql+psycopg_async://{ANNS}/shop", ANN),
        (f"postgresql+pg8000://{ANNS}/shop?timeout=5", ANN | {"connect_timeout": "5"}),
        (f"postgres+asyncpg://{ANNS}/shop", ANN),
        (f"postgres://{ANNS}/shop", ANN),
        (f"postgresql+asyncpg://{ANNS}:6543/shop", ANN | {"port": "6543"}),
        (f"postgresql+asyncpg://{ANNS}/shop?ssl=verify-full", ANN | {"sslmode": "verify-full"}),
        (f"postgresql+asyncpg://{ANNS}/shop?timeout=5", ANN | {"connect_timeout": "5"}),
        (
            f"postgresql+psycopg://{ANNS}/shop?sslmode=require&options=-c%20work_mem%3D1MB%20-c%20jit%3Doff",
            ANN | {"sslmode": "require", "options": "-c work_mem=1MB -c jit=off"},
        ),
        (
            "postgresql+psycopg2://ann:a+b@/shop?host=one:5433&host=two:5434&target_session_attrs=read-write",
            {
                "user": "ann",
                "password": "a+b",
                "dbname": "shop",
                "host": "one,two",
                "port": "5433,5434",
                "target_session_attrs": "read-write",
            },
        ),
        ("postgresql+psycopg://ann@/shop?host=/var/run/pg", {"user": "ann", "dbname": "shop", "host": "/var/run/pg"}),
        ("postgresql+psycopg://ann@[::1]:5/shop", {"user": "ann", "host": "::1", "port": "5", "dbname": "shop"}),
        ("host=db dbname=shop user=ann password=a+b://c", {"user": "ann", "host": "db"} | {"password": "a+b://c"}),
    ],
)
def test_a_url_of_sqlalchemy_is_read_as_libpq_would(url: str, read: dict[str, str]) -> None:
    """Its driver, its way to name several hosts, and what drivers call otherwise."""
    assert conninfo_to_dict(understood(url)) == {"dbname": "shop"} | read


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("postgresql+asyncpg://ann:hunter2@db/shop?prepared_statement_cache_size=0", "prepared_statement_cache_size"),
        ("postgresql+asyncpg://ann:hunter2@db/shop?command_timeout=hunter2", "command_timeout"),
        ("postgresql+psycopg://ann:hunter2@db/shop?ssl=true", "ssl"),
        ("postgresql+psycopg2://ann:hunter2@db/shop?async_fallback=hunter2", "async_fallback"),
        ("postgresql+oracle://ann:hunter2@db/shop", "oracle"),
    ],
)
def test_a_url_option_without_an_equivalent_is_refused_by_name(url: str, named: str) -> None:
    """Never by its value, which may be a secret."""
    with pytest.raises(ConfigurationError, match=f"'{named}'") as raised:
        connect(url)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("option", ["ter2=1@db/shop", "hun%20ter2=1", "hun-ter2=1", "hunter2@db/shop", "hunter2"])
def test_an_option_that_may_be_the_rest_of_a_password_is_not_named(option: str) -> None:
    """A password with a bare question mark ends there for every reader of the URL."""
    with pytest.raises(ConfigurationError, match="cannot be read") as raised:
        understood(f"postgresql+psycopg://ann:hun?{option}")
    assert "ter2" not in str(raised.value)


def test_every_entry_point_takes_a_url_of_sqlalchemy(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An engine, with a listen_url of that kind, too; the command line; and the log, which shows no password."""
    url = with_parameters(database_url).replace("postgresql://", "postgresql+psycopg://")
    with Engine(url, listen_url=url, executes=False) as engine:
        assert engine.list_workflows() == []
    assert main(["workflow", "list", "--database-url", url]) == 0
    assert main(["migrate", "--sql", "--database-url", url]) == 0
    assert "nothing to run" in capsys.readouterr().err


def test_the_log_names_the_databases_place_and_no_password(caplog: pytest.LogCaptureFixture) -> None:
    """As of any other URL."""
    caplog.set_level("INFO")
    find_database(f"postgresql+asyncpg://{ANNS}/shop").close()
    assert "host=db dbname=shop user=ann" in caplog.text
    assert "p@ss" not in caplog.text
    assert "%40" not in caplog.text
