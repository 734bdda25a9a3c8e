"""``dbosflow migrate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from dbosflow._store.migrate import HEAD, current_revision

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.shell import Shell


def test_it_makes_the_schema_and_says_so(bare_shell: Shell, empty_database_url: str) -> None:
    """Once from nothing, and never again."""
    bare_shell.use(empty_database_url)
    first, second = bare_shell.run("migrate"), bare_shell.run("migrate")
    assert first.out == f"schema 'dbosflow' is at revision {HEAD} now; before: nothing\n"
    assert second.out == f"schema 'dbosflow' is at revision {HEAD}: nothing to do\n"
    assert (first.status, second.status) == (0, 0)


def test_the_sql_that_it_prints_does_the_same(bare_shell: Shell, empty_database_url: str) -> None:
    """``--sql`` changes nothing; what it prints migrates, also into a schema of another name."""
    for schema in ("dbosflow", 'od"d name'):
        options = ("--database-url", empty_database_url, "--schema", schema)
        printed = bare_shell.run("migrate", "--sql", *options)
        assert printed.status == 0, printed.err
        assert current_revision(empty_database_url, schema) is None
        with psycopg.connect(empty_database_url, autocommit=True) as connection:
            connection.execute(printed.out.encode())
        assert current_revision(empty_database_url, schema) == HEAD
        assert bare_shell.run("migrate", "--sql", *options).out == ""


def test_the_embedded_server_is_used_when_it_is_asked_for(bare_shell: Shell) -> None:
    """And only looking at it afterwards, from the same directory, needs no option; changing something does."""
    assert bare_shell.run("migrate", "--embedded").status == 0
    listing = bare_shell.run("workflow", "list")
    assert listing.status == 0
    assert "there are no such workflows" in listing.err
    prune = ("prune", "--older-than", "1d")
    for looking in (("doctor",), ("migrate", "--sql"), (*prune, "--dry-run")):
        assert bare_shell.run(*looking).status == 0
    assert "of host" in bare_shell.run("health").out  # it was asked
    for changing in (("migrate",), prune, ("workflow", "cancel", "x"), ("workflow", "resume", "x"), ("worker", "app")):
        refused = bare_shell.run(*changing)
        assert (refused.status, refused.out) == (1, "")
        assert "ask for an embedded server: --embedded" in refused.err
    assert bare_shell.run(*prune, "--embedded").out == "0 workflows pruned\n"
    elsewhere: Path = bare_shell.directory / "elsewhere"
    assert bare_shell.run("migrate", "--embedded", "--data-dir", str(elsewhere)).status == 0
    assert elsewhere.is_dir()
