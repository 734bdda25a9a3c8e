"""Migrates a database's schema to this code's version, and refuses a schema that this code cannot serve.

Every engine calls ``ensure_schema`` when it opens, so many processes may meet at an empty database:

```text
read revision ──── newest, or newer and compatible ───────────────────────────► go on
     │
     └─ none, or older ──► BEGIN ─► advisory lock ─► read again ─► migrate ─► COMMIT
```

The first line is the usual way and costs one query. Only the second one imports alembic, which takes longer than the
rest of an engine's start. All pending migrations run in one transaction, so a schema is never half migrated, whichever
process is killed. Migrations only go forward, and expand first. So old code runs on a newer schema as long as
``compatibility.oldest_code`` allows it, which rolling deployments need.
"""

from __future__ import annotations

import io
import logging
import re
import threading
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import psycopg
from psycopg import errors

from dbosflow._store import statements
from dbosflow._store.connect import TIMEOUT, connect
from dbosflow.errors import DatabaseUnavailableError, PermissionDeniedError, SchemaError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import Connection

logger = logging.getLogger("dbosflow.database")

# The newest revision. Revisions are four digits, each greater than the one before.
HEAD = "0026"

# From this revision on keys have the form that `_records/keys.py` gives them.
_KEYS = "0008"

# Compared with `compatibility.oldest_code`. A migration that older code cannot work with raises that number, and the
# release that can work with it raises this one.
CODE_GENERATION = 1

# alembic's `op` and `context` are process-wide, and engines may open in several threads.
_alembic_in_use = threading.Lock()


GrantKind = Literal["worker", "client", "reader"]

_PAUSE = 1.0
"""Seconds between two attempts to lock tables, during which other sessions make progress."""

_GRANTED = re.compile(r':"(role|schema)"')


class _State(NamedTuple):
    revision: str  # "" if there is no schema: that sorts before every revision
    oldest_code: int


def ensure_schema(url: str, schema: str = statements.DEFAULT_SCHEMA, *, timeout: float = TIMEOUT) -> None:
    """Makes ``schema`` fit this code: creates it if it is missing, and migrates it if it is older.

    Raises:
        SchemaError: the schema needs newer code, or it could not be migrated and is unchanged.
        DatabaseUnavailableError: there was no connection within ``timeout`` seconds, or it was lost.
        ConfigurationError: the URL is wrong.
    """
    migrate(url, schema, timeout=timeout)


def migrate(url: str, schema: str = statements.DEFAULT_SCHEMA, *, timeout: float = TIMEOUT) -> tuple[str | None, str]:
    """Like ``ensure_schema``. Returns the revision before (None for an empty database) and the one after."""
    with connect(url, timeout=timeout, pooled=True) as connection, named_errors(schema):
        found = _read(connection, schema)
    if not _is_older(found, schema):
        return found.revision, found.revision
    deadline = time.monotonic() + timeout
    with named_errors(schema):
        while True:
            try:
                return _migrate(url, schema, timeout)
            except errors.LockNotAvailable as error:
                if time.monotonic() > deadline:
                    raise _locked_out(schema) from error
                logger.warning("%s; trying again", _locked_out(schema))
                time.sleep(_PAUSE)


def current_revision(url: str, schema: str = statements.DEFAULT_SCHEMA, *, timeout: float = TIMEOUT) -> str | None:
    """The revision of ``schema``; None if there is no schema."""
    with connect(url, timeout=timeout, pooled=True) as connection, named_errors(schema):
        return _read(connection, schema).revision or None


def migration_sql(schema: str = statements.DEFAULT_SCHEMA, since: str | None = None) -> str:
    """The statements of ``migrate`` for a schema at revision ``since`` (None: for an empty database), for psql."""
    if since is not None and since >= HEAD:
        return ""
    preamble = _statement("begin_migration")
    if since is None:
        preamble += f"CREATE SCHEMA IF NOT EXISTS {statements.quoted(schema)};\n"
    text = io.StringIO()
    _upgrade(f"{since or 'base'}:{HEAD}", text, schema=schema, preamble=preamble)
    return text.getvalue()


def grants_sql(role: str, kind: GrantKind, schema: str = statements.DEFAULT_SCHEMA) -> str:
    """The statements that let ``role`` be a ``kind``, for psql. The schema's owner runs them after each migration."""
    text = statements.source("grants")[kind]
    names = {"role": statements.quoted(role), "schema": statements.quoted(schema)}
    return _GRANTED.sub(lambda place: names[place[1]], text).strip() + "\n"


def drop_schema(url: str, schema: str, *, timeout: float = TIMEOUT) -> None:
    """Drops ``schema`` with everything in it. Only for a schema that the caller has created."""
    with connect(url, timeout=timeout, pooled=True) as connection, named_errors(schema):
        connection.execute(statements.literal(f"DROP SCHEMA IF EXISTS {statements.quoted(schema)} CASCADE"))


def run_file(context: MigrationContext, path: Path) -> None:
    """Runs a migration's ``.sql`` file unchanged: neither driver nor dialect looks for parameters in it."""
    text = statements.in_schema(path.read_text("utf-8"), context.opts["version_table_schema"])
    if context.as_sql:
        context.impl.static_output(text)
    elif context.connection is not None:
        context.connection.exec_driver_sql(text, execution_options={"no_parameters": True})


def _locked_out(schema: str) -> DatabaseUnavailableError:
    return DatabaseUnavailableError(
        f"schema {schema!r} could not be migrated, and is as it was before: another session holds its tables "
        "(a dump, or a long transaction), and workers would queue up behind the migration. Run it when that is over"
    )


def _read(connection: psycopg.Connection[Any], schema: str) -> _State:
    query = statements.literal(_statement("read_state", schema))
    # An empty database answers with an error, after which a transaction can only continue from a savepoint.
    savepoint = nullcontext() if connection.autocommit else connection.transaction()
    try:
        with savepoint:
            revision, oldest_code = connection.execute(query).fetchone() or (None, None)
    except errors.UndefinedTable:
        return _State("", 0)
    return _State(revision or "", oldest_code or 0)


def _is_older(found: _State, schema: str) -> bool:
    """Whether migrations are pending. Raises ``SchemaError`` if this code is too old for the schema."""
    if found.oldest_code > CODE_GENERATION:
        message = (
            f"schema {schema!r} is at revision {found.revision} and needs code of generation {found.oldest_code} "
            f"or newer, but this is generation {CODE_GENERATION}: upgrade dbosflow on this machine"
        )
        raise SchemaError(message)
    return found.revision < HEAD


def _migrate(url: str, schema: str, timeout: float) -> tuple[str | None, str]:
    with _transaction(url, timeout) as (connection, driver):
        driver.execute(statements.literal(_statement("begin_migration")))
        found = _read(driver, schema)
        if not _is_older(found, schema):  # another process was faster
            return found.revision or None, found.revision
        if found.revision and found.revision < _KEYS:
            _warn_of_unfinished(driver, schema)
        _create_schema(driver, schema)
        _upgrade(HEAD, schema=schema, connection=connection)
        return found.revision or None, HEAD


@contextmanager
def _transaction(url: str, timeout: float) -> Iterator[tuple[Connection, psycopg.Connection[Any]]]:
    """One transaction, as alembic needs it and as the driver's own connection.

    SQLAlchemy never sees the URL, because it has no equivalent for some of libpq's forms (several hosts, sockets,
    ``options``, ``key=value``).
    """
    import sqlalchemy

    def connect_for_migration() -> psycopg.Connection[Any]:
        connection = connect(url, timeout=timeout, pooled=True)
        connection.autocommit = False
        # Overrides the role's defaults: a read after the lock has to see what was committed before.
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        connection.read_only = False
        return connection

    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://",
        creator=connect_for_migration,
        poolclass=sqlalchemy.NullPool,
        use_native_hstore=False,  # saves a query for a type that is not used
    )
    try:
        with engine.begin() as connection:
            yield connection, cast("psycopg.Connection[Any]", connection.connection.driver_connection)
    except sqlalchemy.exc.DBAPIError as error:
        raise error.orig or error from error


def _warn_of_unfinished(connection: psycopg.Connection[Any], schema: str) -> None:
    """Logs the workflows that may find none of their records, because today's code gives them other keys."""
    rows = connection.execute(statements.literal(_statement("unfinished", schema))).fetchall()
    if rows:
        logger.warning(
            "schema %r has %d unfinished workflows whose records were made under keys of an earlier form: %s. Those "
            "without tasks go on. One that finds other keys than its code makes is parked as blocked, and never runs "
            "anything twice; `dbosflow replay` tells which",
            schema,
            sum(count for _, count in rows),
            ", ".join(f"{count} of {name!r}" for name, count in rows),
        )


def _create_schema(connection: psycopg.Connection[Any], schema: str) -> None:
    query = statements.literal(statements.load("schema_version")["find_schema"])
    if connection.execute(query, {"schema": schema}).fetchone() != (True,):
        connection.execute(statements.literal(f"CREATE SCHEMA {statements.quoted(schema)}"))


def _statement(name: str, schema: str = statements.DEFAULT_SCHEMA) -> str:
    """A statement without parameters, unchanged: psycopg does not look for any either."""
    return statements.in_schema(statements.source("schema_version")[name], schema)


def _upgrade(revisions: str, output: io.StringIO | None = None, **attributes: object) -> None:
    """Runs alembic, or makes it print to ``output``. ``attributes`` are for the environment script."""
    with _alembic_in_use, _quiet():
        _run_alembic(revisions, output, attributes)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences alembic's messages about how it works and which plugins it has: an engine's user has no use for them."""
    log = logging.getLogger("alembic")
    level = log.level
    log.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        log.setLevel(level)


def _run_alembic(revisions: str, output: io.StringIO | None, attributes: dict[str, object]) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config(output_buffer=output, attributes=attributes)
    config.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    command.upgrade(config, revisions, sql=output is not None)


def _scripts() -> Path:
    """The directory of the migrations: inside an installed package, beside the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for place in (package / "migrations", package.parent / "migrations"):
        if place.joinpath("env.py").is_file():
            return place
    message = f"this installation of dbosflow is incomplete: there are no migrations in {package}"
    raise SchemaError(message)


@contextmanager
def named_errors(schema: str) -> Iterator[None]:
    """Turns the database's errors into this package's errors, which say what to do."""
    try:
        yield
    except (errors.InsufficientPrivilege, PermissionDeniedError) as error:
        refusal = error if isinstance(error, psycopg.Error) else error.__cause__
        why = refusal.diag.message_primary if isinstance(refusal, psycopg.Error) else error
        message = (
            f"this database role may not use or migrate schema {schema!r}: {why}. Run `dbosflow migrate` as the role "
            "that owns the schema, or is to own it, and grant this one USAGE on the schema and SELECT, INSERT, UPDATE, "
            "DELETE on its tables, as `dbosflow migrate --grants ROLE` prints it."
        )
        raise SchemaError(message) from error
    except psycopg.OperationalError as error:
        message = f"the database failed while schema {schema!r} was opened or migrated: {_first_line(error)}"
        raise DatabaseUnavailableError(message) from error
    except psycopg.Error as error:
        message = f"schema {schema!r} could not be opened or migrated, and is as it was before: {_first_line(error)}"
        raise SchemaError(message) from error


def _first_line(error: psycopg.Error) -> str:
    return error.diag.message_primary or str(error).strip().partition("\n")[0]
