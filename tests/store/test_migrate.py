"""Opening and migrating a schema: by many at once, from older and newer code, with and without the right to."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
from alembic.script import ScriptDirectory
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dbosflow._store import migrate
from dbosflow.errors import DatabaseUnavailableError, SchemaError
from tests.store import catalog
from tests.support import eventually, with_parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]

HEAD = migrate.HEAD
NEXT = f"{int(HEAD) + 1:04}"
"""The revision of the release after this one."""

OPEN_ON_A_LINE = """
import sys
from dbosflow._store.migrate import ensure_schema
print("ready", flush=True)
sys.stdin.readline()
ensure_schema(sys.argv[1])
print("alembic" in sys.modules, flush=True)
"""

ODD_NAMES = [
    "Upper Case",
    'quo"te',
    "per%cent %s",
    "colon :name ::x",
    "semi;colon--",
    "dbosflow.",
    "back\\slash",
    "ünïcode 流",
]


@contextmanager
def process(url: str) -> Iterator[subprocess.Popen[str]]:
    """A process that opens the schema of ``url`` when it reads a line."""
    with subprocess.Popen(
        [sys.executable, "-c", OPEN_ON_A_LINE, url], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def open_now(opener: subprocess.Popen[str]) -> None:
    assert opener.stdin is not None
    opener.stdin.write("\n")
    opener.stdin.flush()


def read(opener: subprocess.Popen[str]) -> str:
    assert opener.stdout is not None
    return opener.stdout.readline().strip()


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


@pytest.fixture
def next_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The code of a later release, whose one migration more is the file that is returned: to be written by the test."""
    scripts = tmp_path / "migrations"
    shutil.copytree(ROOT / "migrations", scripts, ignore=shutil.ignore_patterns("__pycache__"))
    first = scripts / "versions" / "0001_spine.py"
    second = first.with_name(f"{NEXT}_next.py")
    text = first.read_text("utf-8")
    text = text.replace('revision = "0001"', f'revision = "{NEXT}"').replace(
        "down_revision = None", f'down_revision = "{migrate.HEAD}"'
    )
    second.write_text(text, "utf-8")
    monkeypatch.setattr(migrate, "_scripts", lambda: scripts)
    monkeypatch.setattr(migrate, "HEAD", NEXT)
    return second.with_suffix(".sql")


@pytest.fixture
def role_url(empty_database_url: str) -> Iterator[str]:
    """The empty database, as a role that may do nothing in particular."""
    role = f"dbosflow_test_{uuid4().hex}"
    execute(empty_database_url, f"CREATE ROLE {role}")
    try:
        yield with_parameters(empty_database_url, options=f"-c role={role}")  # needs no way to log in
    finally:
        execute(empty_database_url, f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


def role_of(url: str) -> str:
    return str(conninfo_to_dict(url)["options"]).partition("=")[2]


def test_head_is_the_newest_migration() -> None:
    """The constant that spares each start the import of alembic is right, and revisions sort as they follow."""
    scripts = ScriptDirectory(str(ROOT / "migrations"))
    assert scripts.get_heads() == [migrate.HEAD]
    revisions = [script.revision for script in scripts.walk_revisions()][::-1]
    assert revisions == sorted(revisions)
    assert all(len(revision) == 4 and revision.isdecimal() for revision in revisions)


def test_an_empty_database_is_migrated_once(empty_database_url: str) -> None:
    """The first call makes the schema, the second finds it."""
    assert migrate.current_revision(empty_database_url) is None
    assert migrate.migrate(empty_database_url) == (None, migrate.HEAD)
    assert migrate.migrate(empty_database_url) == (migrate.HEAD, migrate.HEAD)
    assert migrate.current_revision(empty_database_url) == migrate.HEAD


def test_a_current_schema_costs_one_query_and_no_alembic(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine's start is as fast as it can be."""
    with process(database_url) as opener:
        open_now(opener)
        assert [read(opener), read(opener)] == ["ready", "False"]

    migrate.ensure_schema(database_url)  # a server that this process does not know is asked for its settings, too
    queries = []
    execute = psycopg.Connection.execute

    def counted(self: psycopg.Connection[Any], query: Any, *args: Any, **kwargs: Any) -> Any:
        queries.append(query)
        return execute(self, query, *args, **kwargs)

    monkeypatch.setattr(psycopg.Connection, "execute", counted)
    migrate.ensure_schema(database_url)
    assert len(queries) == 1


def test_twelve_processes_open_an_empty_database_at_once(empty_database_url: str) -> None:
    """All of them find a whole schema, also where the default isolation would show them an old one."""
    name = conninfo_to_dict(empty_database_url)["dbname"]
    execute(empty_database_url, f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    with ExitStack() as resources:
        openers = [resources.enter_context(process(empty_database_url)) for _ in range(12)]
        assert [read(opener) for opener in openers] == ["ready"] * 12
        for opener in openers:
            open_now(opener)
        assert [opener.wait() for opener in openers] == [0] * 12
    assert migrate.current_revision(empty_database_url) == migrate.HEAD


def test_threads_of_one_process_do_not_mix_up_their_schemas() -> None:
    """Engines may open at once in several threads, but alembic keeps its state in modules."""
    names = [f"schema {n}" for n in range(8)]
    one_by_one = [migrate.migration_sql(name) for name in names]
    with ThreadPoolExecutor(len(names)) as pool:
        assert list(pool.map(migrate.migration_sql, names)) == one_by_one


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_schema_may_have_any_name(empty_database_url: str, name: str) -> None:
    """Whatever Postgres takes as a schema's name, dbosflow takes, and nothing lands outside of it."""
    assert migrate.migrate(empty_database_url, name) == (None, migrate.HEAD)
    assert migrate.migrate(empty_database_url, name) == (migrate.HEAD, migrate.HEAD)
    assert "workflow" in catalog.tables(empty_database_url, name)
    with psycopg.connect(empty_database_url) as connection:
        elsewhere = connection.execute(
            "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN (%s, 'pg_catalog', 'information_schema')", [name]
        ).fetchone()
    assert elsewhere == (0,)


@pytest.mark.parametrize("name", ["dbosflow", *ODD_NAMES])
def test_the_printed_sql_makes_the_same_schema(empty_database_url: str, name: str) -> None:
    """A database administrator who runs the script by hand gets what ``dbosflow migrate`` would have made."""
    execute(empty_database_url, migrate.migration_sql(name))
    printed = catalog.describe(empty_database_url, name)
    assert migrate.migrate(empty_database_url, name) == (migrate.HEAD, migrate.HEAD)
    execute(empty_database_url, sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(name)).as_string())
    migrate.ensure_schema(empty_database_url, name)
    assert printed == catalog.describe(empty_database_url, name)


def test_the_printed_sql_begins_where_the_schema_is() -> None:
    """Nothing is due for a schema that is current."""
    assert "CREATE TABLE" in migrate.migration_sql()
    assert migrate.migration_sql(since=migrate.HEAD) == ""


def test_an_older_schema_is_brought_forward(database_url: str, next_release: Path) -> None:
    """A new release finds the rows of the old one."""
    execute(database_url, "INSERT INTO dbosflow.workflow (id, name, status, input) VALUES ('w', 'f', 'queued', '{}')")
    next_release.write_text("ALTER TABLE dbosflow.workflow ADD COLUMN colour text NOT NULL DEFAULT 'red';", "utf-8")
    assert migrate.migrate(database_url) == (HEAD, NEXT)
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT id, colour FROM dbosflow.workflow").fetchall() == [("w", "red")]


def make_at(revision: str, url: str) -> None:
    """Makes the schema as it was at a revision."""
    printed = io.StringIO()
    migrate._upgrade(f"base:{revision}", printed, schema="dbosflow", preamble='CREATE SCHEMA "dbosflow";')
    execute(url, printed.getvalue())


def test_a_migration_that_changes_keys_says_whose_records_may_not_be_found(
    empty_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By workflow, of those alone that have records and have not ended; another migration says nothing."""
    workflows = [
        ("a", "order", "running"),
        ("b", "order", "blocked"),
        ("c", "report", "queued"),
        ("d", "x", "succeeded"),
    ]
    make_at("0007", empty_database_url)
    for number, (key, name, status) in enumerate([*workflows, ("e", "fresh", "queued")]):
        execute(
            empty_database_url,
            f"INSERT INTO dbosflow.workflow (id, name, status, input) VALUES ('{key}', '{name}', '{status}', '{{}}')",
        )
        if number < len(workflows):
            columns = "workflow_id, key, kind, epoch, seq, turn, started_at"
            record = f"('{key}', 'x#0', 'step', 1, 0, 0, now())"
            execute(empty_database_url, f"INSERT INTO dbosflow.step ({columns}) VALUES {record}")
    assert migrate.migrate(empty_database_url) == ("0007", HEAD)
    (said,) = [record.getMessage() for record in caplog.records if "unfinished" in record.getMessage()]
    assert "has 3 unfinished workflows" in said
    assert "2 of 'order', 1 of 'report'." in said
    caplog.clear()
    execute(empty_database_url, "DROP SCHEMA dbosflow CASCADE")
    make_at("0007", empty_database_url)
    execute(
        empty_database_url,
        "INSERT INTO dbosflow.workflow (id, name, status, input) VALUES ('a', 'order', 'cancelled', '{}')",
    )
    assert migrate.migrate(empty_database_url) == ("0007", HEAD)
    assert "unfinished" not in caplog.text


def test_the_printed_sql_continues_an_older_schema(database_url: str, next_release: Path) -> None:
    """The script holds what is missing, and asks for no right to create a schema that is there."""
    next_release.write_text("ALTER TABLE dbosflow.workflow ADD COLUMN colour text;", "utf-8")
    printed = migrate.migration_sql(since=migrate.current_revision(database_url))
    assert "CREATE" not in printed
    execute(database_url, printed)
    assert migrate.migrate(database_url) == (NEXT, NEXT)


def test_an_empty_database_gets_all_migrations_or_none(empty_database_url: str, next_release: Path) -> None:
    """One transaction holds them all: if the last one fails, the first has not happened."""
    next_release.write_text("CREATE TABLE dbosflow.colour (id text); SELECT 1 / 0;", "utf-8")
    with pytest.raises(SchemaError, match="as it was before: division by zero"):
        migrate.ensure_schema(empty_database_url)
    assert catalog.tables(empty_database_url) == []
    assert migrate.current_revision(empty_database_url) is None


def test_newer_schemas_are_used_while_they_allow_it(database_url: str) -> None:
    """Old workers go on during a rolling deploy, until a migration says that they cannot."""
    execute(database_url, "UPDATE dbosflow.schema_version SET version_num = '9999'")
    assert migrate.migrate(database_url) == ("9999", "9999")
    execute(database_url, "UPDATE dbosflow.compatibility SET oldest_code = 7")
    with pytest.raises(SchemaError, match=r"generation 7 or newer.*upgrade dbosflow"):
        migrate.ensure_schema(database_url)


def test_an_older_schema_is_left_alone_by_code_it_locks_out(database_url: str, next_release: Path) -> None:
    """The number alone decides, whichever revision it stands beside."""
    next_release.write_text("CREATE TABLE dbosflow.colour (id text);", "utf-8")
    execute(database_url, "UPDATE dbosflow.compatibility SET oldest_code = 7")
    with pytest.raises(SchemaError, match="upgrade dbosflow"):
        migrate.ensure_schema(database_url)
    assert "colour" not in catalog.tables(database_url)


def test_a_role_without_rights_is_told_who_should_migrate(role_url: str, empty_database_url: str) -> None:
    """At each turn the message names the command, and what to grant."""
    with pytest.raises(SchemaError, match=r"permission denied for database .*`dbosflow migrate`"):
        migrate.ensure_schema(role_url)
    migrate.ensure_schema(empty_database_url)
    with pytest.raises(SchemaError, match=r"permission denied for schema dbosflow.* grant this one USAGE"):
        migrate.ensure_schema(role_url)

    role = role_of(role_url)
    execute(
        empty_database_url,
        f"GRANT USAGE ON SCHEMA dbosflow TO {role};"
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA dbosflow TO {role}",
    )
    assert migrate.migrate(role_url) == (migrate.HEAD, migrate.HEAD)


def test_a_role_that_is_no_owner_cannot_migrate(
    role_url: str, empty_database_url: str, request: pytest.FixtureRequest
) -> None:
    """The rights that a worker needs do not let it change tables."""
    migrate.ensure_schema(empty_database_url)
    execute(
        empty_database_url,
        f"GRANT USAGE ON SCHEMA dbosflow TO {role_of(role_url)};"
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA dbosflow TO {role_of(role_url)}",
    )
    next_release: Path = request.getfixturevalue("next_release")
    next_release.write_text("ALTER TABLE dbosflow.workflow ADD COLUMN colour text;", "utf-8")
    with pytest.raises(SchemaError, match=r"must be owner of table workflow.*`dbosflow migrate`"):
        migrate.ensure_schema(role_url)
    assert migrate.current_revision(empty_database_url) == HEAD


def test_a_schema_made_for_the_role_is_enough(role_url: str, empty_database_url: str) -> None:
    """Where only an administrator creates schemas, the owner of an empty one can migrate."""
    execute(empty_database_url, f"CREATE SCHEMA dbosflow AUTHORIZATION {role_of(role_url)}")
    assert migrate.migrate(role_url) == (None, migrate.HEAD)


def test_a_foreign_table_in_the_way_leaves_the_schema_as_it_was(empty_database_url: str) -> None:
    """A half-made schema is never left behind, here because a later table's name is taken."""
    execute(empty_database_url, "CREATE SCHEMA dbosflow; CREATE TABLE dbosflow.worker (mine integer)")
    with pytest.raises(SchemaError, match='as it was before: relation "worker" already exists'):
        migrate.ensure_schema(empty_database_url)
    assert catalog.tables(empty_database_url) == ["worker"]


def test_a_killed_migration_leaves_nothing(empty_database_url: str) -> None:
    """A process killed in the middle of the migration has done nothing, and holds up nobody."""
    execute(empty_database_url, "CREATE SCHEMA dbosflow")
    with psycopg.connect(empty_database_url) as obstacle, process(empty_database_url) as opener:
        obstacle.execute("CREATE TABLE dbosflow.worker ()")  # not committed: a session that wants the name waits
        assert read(opener) == "ready"
        open_now(opener)
        with psycopg.connect(empty_database_url, autocommit=True) as watcher:
            known = [watcher.info.backend_pid, obstacle.info.backend_pid]
            query = (
                "SELECT wait_event_type FROM pg_stat_activity WHERE datname = current_database() AND pid <> ALL (%s)"
            )
            query += " AND backend_type = 'client backend'"
            eventually(lambda: watcher.execute(query, [known]).fetchall() == [("Lock",)])
            opener.kill()
            obstacle.rollback()
            eventually(lambda: watcher.execute(query, [known]).fetchall() == [])
    assert catalog.tables(empty_database_url) == []
    migrate.ensure_schema(empty_database_url)


@contextmanager
def another_migration(url: str) -> Iterator[tuple[psycopg.Connection[Any], psycopg.Connection[Any]]]:
    """A migration of somebody else's that is under way, and a connection that shows which sessions wait for it."""
    with psycopg.connect(url) as under_way, psycopg.connect(url, autocommit=True) as watcher:
        under_way.execute("SELECT pg_advisory_xact_lock(hashtextextended('dbosflow migrate', 0))")
        yield under_way, watcher


WAITING = """
    SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'
    AND clock_timestamp() - query_start > %s * interval '1 s'
"""


def test_a_roles_timeouts_do_not_cut_the_wait_for_another_migration(empty_database_url: str) -> None:
    """``statement_timeout`` and ``lock_timeout`` are meant for queries; here they would fail an engine's start."""
    impatient = with_parameters(empty_database_url, options="-c statement_timeout=100 -c lock_timeout=100")
    with ThreadPoolExecutor() as pool, another_migration(empty_database_url) as (under_way, watcher):
        opened = pool.submit(migrate.migrate, impatient)
        eventually(lambda: watcher.execute(WAITING, [0.3]).fetchall())
        under_way.rollback()
        assert opened.result() == (None, migrate.HEAD)


def test_a_migration_that_cannot_lock_the_tables_holds_nobody_up(
    empty_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """All that come after it would wait as long as it does; it gives way, says so, and comes again."""
    older = io.StringIO()
    migrate._upgrade("base:0003", older, schema="dbosflow", preamble='CREATE SCHEMA "dbosflow";')
    execute(empty_database_url, older.getvalue())
    with psycopg.connect(empty_database_url) as dump, ThreadPoolExecutor() as pool:
        dump.execute("SELECT FROM dbosflow.stream_trim")
        with pytest.raises(DatabaseUnavailableError, match="could not be migrated, and is as it was"):
            migrate.migrate(empty_database_url, timeout=0)
        opened = pool.submit(migrate.migrate, empty_database_url)
        eventually(lambda: "another session holds its tables" in caplog.text)
        execute(empty_database_url, "SELECT FROM dbosflow.stream_trim")
        dump.rollback()
        assert opened.result() == ("0003", migrate.HEAD)


def test_a_process_that_waited_for_another_migration_takes_what_it_left(empty_database_url: str) -> None:
    """Also where that was newer code, whose revisions this one does not know."""
    newer = "UPDATE dbosflow.schema_version SET version_num = '9999'; COMMIT;"
    printed = migrate.migration_sql().replace("BEGIN;", "").replace("COMMIT;", newer)
    with ThreadPoolExecutor() as pool, another_migration(empty_database_url) as (under_way, watcher):
        opened = pool.submit(migrate.migrate, empty_database_url)
        eventually(lambda: watcher.execute(WAITING, [0]).fetchall())
        under_way.execute(printed.encode())
        assert opened.result() == ("9999", "9999")


def test_every_form_of_a_url_can_migrate(empty_database_url: str) -> None:
    """What libpq reads, dbosflow reads: its own ``key=value`` form, options, and several hosts of which one is down."""
    parameters = conninfo_to_dict(empty_database_url)
    host = str(parameters.get("host", ""))
    forms = {
        "key=value": make_conninfo("", **parameters),
        "options": with_parameters(
            empty_database_url, options="-c default_transaction_read_only=on -c search_path=pg_catalog"
        ),
        "hosts": with_parameters(empty_database_url, host=f"/nonexistent,{host}", target_session_attrs="read-write"),
    }
    for name, url in forms.items():
        assert migrate.migrate(url, name) == (None, migrate.HEAD)
