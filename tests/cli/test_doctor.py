"""``dbosflow doctor``: each check finds the fault that is planted for it, and nothing is changed by looking."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from dbosflow import Engine, step, workflow
from dbosflow._sessions import POOL, mending
from dbosflow._store import notify
from dbosflow._store.migrate import HEAD
from dbosflow.cli.doctor import database, examination, work
from dbosflow.cli.doctor.examination import examine
from dbosflow.cli.doctor.finding import Finding, Verdict
from tests.runtime.sessions import sessions
from tests.support import eventually, password_of, with_parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.shell import Shell

    Execute = Callable[..., list[tuple[Any, ...]]]

ALL = [
    "connection",
    "versions",
    "clock",
    "connections",
    "listen",
    "settings",
    "schema",
    "workers",
    "work",
    "outbox",
    "schedules",
    "retention",
]


@step
def halved(number: int) -> float:
    return number / 2


@workflow
def halving(number: int) -> float:
    """Leaves a record."""
    return halved(number)


def checks(url: str, **options: Any) -> dict[str, Finding]:
    """What each check found."""
    return {finding.check: finding for finding in asyncio.run(examine(url, "dbosflow", **options))}


def add_worker(execute: Execute, *, renewed: str = "now()", state: str = "live", pid: int = 4711) -> str:
    """A row of ``worker``, as a worker on another host would leave it; its id."""
    ((worker_id,),) = execute(
        "INSERT INTO dbosflow.worker (id, state, lease, renewed_at, host, pid, version) "
        f"VALUES (gen_random_uuid(), %s, 10, {renewed}, 'far-away', %s, '0.0.9') RETURNING id",
        state,
        pid,
    )
    return str(worker_id)


def add_workflow(execute: Execute, *, status: str = "queued", queue: str = "default", owner: str | None = None) -> None:
    """A workflow of an hour ago."""
    execute(
        "INSERT INTO dbosflow.workflow (id, name, status, queue, input, created_at, worker_id) "
        "VALUES (%s, 'w', %s, %s, '{}', now() - interval '1 h', %s)",
        uuid4().hex,
        status,
        queue,
        owner,
    )


@pytest.fixture
def role(database_url: str, execute: Execute) -> Iterator[tuple[str, str]]:
    """A role that may do nothing in particular, and the database's URL as that role."""
    name = f"dbosflow_test_{uuid4().hex}"
    execute(f"CREATE ROLE {name}")
    try:
        yield name, with_parameters(database_url, options=f"-c role={name}")  # needs no way to log in
    finally:
        execute(f"DROP OWNED BY {name} CASCADE")
        execute(f"DROP ROLE {name}")


def test_a_database_that_is_well(shell: Shell, database_url: str) -> None:
    """With a worker on it: every check is made, each in a line, and nobody sees a password."""
    with Engine(database_url):
        secret = with_parameters(database_url, password=password_of(database_url))
        done = shell.run("doctor", "--database-url", secret)
        answer = json.loads(shell.run("doctor", "--json").out)
    lines = [line.split() for line in done.out.splitlines()]
    assert [words[1] for words in lines if words and words[0] in {"ok", "warning"}] == ALL
    assert lines[-1][:2] == ["problems:", "0,"]
    assert (done.status, done.err) == (0, "")
    assert "the-secret" not in done.out
    assert "password" not in done.out
    assert answer["ok"] is True
    assert [one["check"] for one in answer["checks"]] == ALL
    facts = {one["check"]: one["facts"] for one in answer["checks"]}
    parameters = conninfo_to_dict(database_url)
    assert facts["connection"]["database"] == parameters["dbname"]
    assert facts["listen"]["heard"] is True
    assert (facts["workers"]["live"], facts["workers"]["stale"], facts["workers"]["dead"]) == (1, 0, 0)
    assert facts["schema"]["revision"] == HEAD
    assert (facts["connections"]["max_connections"] > 0, facts["settings"]["standby"]) == (True, False)


def test_looking_changes_nothing(database_url: str, empty_database_url: str, execute: Execute) -> None:
    """No row is written, not even as it was; no schema is made, and none is migrated."""
    with Engine(database_url) as engine:
        engine.run(halving.options(workflow_id="w"), 3)
    execute("UPDATE dbosflow.schema_version SET version_num = '0000'")
    tables = ["workflow", "step", "stream_block", "worker", "schema_version", "compatibility", "retention"]

    def everything() -> list[Any]:
        return [execute(f"SELECT xmin::text, ctid::text, t::text FROM dbosflow.{table} t") for table in tables]

    before = everything()
    assert checks(database_url).keys() == set(ALL)
    assert everything() == before
    checks(empty_database_url)
    with psycopg.connect(empty_database_url) as connection:
        found = connection.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'dbosflow'").fetchone()
    assert found == (0,)


def test_what_stays_in_the_outbox_is_a_complaint(execute: Execute, database_url: str) -> None:
    """Without a worker nobody applies it; with one an inbox may be full."""
    execute("SELECT dbosflow.start_workflow('f')")
    assert checks(database_url)["outbox"].verdict is Verdict.OK
    execute("SELECT dbosflow.send_message('w', '1')")
    execute("UPDATE dbosflow.outbox SET created_at = now() - interval '1 hour' WHERE workflow_id = 'w'")
    found = checks(database_url)["outbox"]
    assert (found.verdict, found.facts["rows"], found.facts["ids"]) == (Verdict.PROBLEM, 2, ["w"])
    assert found.advice == "no worker is live: start one"
    add_worker(execute)
    found = checks(database_url)["outbox"]
    assert found.verdict is Verdict.WARNING
    assert "`dbosflow workflow explain w`" in str(found.advice)


def test_much_that_is_old_is_a_warning_where_no_retention_removes_it(
    execute: Execute, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says how to have it removed; what has not ended does not count, however old it is."""
    monkeypatch.setattr(examination, "MANY", 2)
    monkeypatch.setattr(work, "MANY", 2)
    execute(
        "INSERT INTO dbosflow.workflow (id, name, status, input, created_at, ended_at) "
        "SELECT 'w' || n, 'w', CASE n WHEN 0 THEN 'blocked' ELSE 'succeeded' END, '{}', now() - interval '40 days', "
        "CASE WHEN n > 0 THEN now() - interval '40 days' END FROM generate_series(0, 2) AS n"
    )
    fine = checks(database_url)["retention"]
    assert (fine.verdict, fine.facts["workflows"]) == (Verdict.OK, 2)
    execute("UPDATE dbosflow.workflow SET ended_at = created_at, status = 'failed' WHERE ended_at IS NULL")
    found = checks(database_url)["retention"]
    assert found.verdict is Verdict.WARNING
    assert "--retention 30d" in str(found.advice)
    execute("INSERT INTO dbosflow.retention (id) VALUES (1)")
    assert checks(database_url)["retention"].facts["is_on"]
    execute("UPDATE dbosflow.retention SET due_at = now() - interval '2 h'")  # whoever had it is gone
    assert checks(database_url)["retention"].verdict is Verdict.WARNING


def test_an_unreachable_server_is_the_one_problem(bare_shell: Shell) -> None:
    done = bare_shell.run("doctor", "--database-url", "postgresql://me:secret@127.0.0.1:1/x")
    problem, _, summary = done.out.splitlines()
    assert problem.startswith("problem  connection  no connection to Postgres at 127.0.0.1:1")
    assert "Is the server running" in problem
    assert summary == "problems: 1, warnings: 0"
    (meanwhile,) = done.err.splitlines()
    assert "WARNING" in meanwhile
    assert "no connection to Postgres at 127.0.0.1:1, database 'x', user 'me' yet" in meanwhile
    assert done.status == 1
    assert "secret" not in done.out + done.err


def test_a_server_that_is_too_old_is_a_problem() -> None:
    ((verdict, what, _),) = database.judge_server(130_011)
    assert (verdict, what) == (Verdict.PROBLEM, "this is Postgres 13")
    assert database.judge_server(140_000) == []


def test_an_old_schema_is_a_warning_for_who_may_migrate_it(
    database_url: str, execute: Execute, role: tuple[str, str]
) -> None:
    """And a problem for a role that may only use it."""
    execute("UPDATE dbosflow.schema_version SET version_num = '0000'")
    finding = checks(database_url)["schema"]
    assert finding.verdict is Verdict.WARNING
    assert f"is at revision 0000, this code has {HEAD}" in finding.found
    name, url = role
    execute(f"GRANT USAGE ON SCHEMA dbosflow TO {name}")
    execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA dbosflow TO {name}")
    finding = checks(url)["schema"]
    assert finding.verdict is Verdict.PROBLEM
    assert "may not migrate it" in finding.found
    execute("UPDATE dbosflow.schema_version SET version_num = %s", HEAD)
    finding = checks(url)["schema"]
    assert (finding.verdict, finding.facts["may_migrate"]) == (Verdict.OK, False)


def test_a_schema_that_needs_newer_code_is_a_problem(database_url: str, execute: Execute) -> None:
    execute("UPDATE dbosflow.compatibility SET oldest_code = 99")
    finding = checks(database_url)["schema"]
    assert finding.verdict is Verdict.PROBLEM
    assert finding.advice == "upgrade dbosflow on this machine"


def test_a_database_without_the_schema_is_a_warning_for_who_may_make_it(empty_database_url: str) -> None:
    """The checks that need it are left out."""
    found = checks(empty_database_url)
    assert found["schema"].verdict is Verdict.WARNING
    assert list(found) == ALL[:-5]


def test_a_role_without_rights_is_a_problem(execute: Execute, role: tuple[str, str]) -> None:
    """The finding names what it lacks: all of it, or a part."""
    name, url = role
    finding = checks(url)["schema"]
    assert finding.verdict is Verdict.PROBLEM
    assert "may not use schema 'dbosflow'" in finding.found
    execute(f"GRANT USAGE ON SCHEMA dbosflow TO {name}")
    execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA dbosflow TO {name}")
    execute(f"REVOKE UPDATE, DELETE ON dbosflow.worker FROM {name}")
    finding = checks(url)["schema"]
    assert (finding.verdict, finding.found) == (Verdict.PROBLEM, "this role lacks DELETE/UPDATE on worker")


def test_a_listen_that_is_not_delivered_is_a_warning(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pooler in transaction mode takes a LISTEN and forgets it. What it means and what to do is said."""

    async def forget(connection: object, command: str, channels: object) -> None: ...

    monkeypatch.setattr(notify, "_each", forget)
    found = checks(database_url)
    assert found["listen"].verdict is Verdict.WARNING
    assert "pooler" in found["listen"].found
    assert "listen_url" in str(found["listen"].advice)
    assert found["settings"].facts["pooled"] is True


def test_a_listen_url_that_leads_elsewhere_is_a_problem(database_url: str, empty_database_url: str) -> None:
    """NOTIFY stays within a database, so a listener in another one waits for ever."""
    assert checks(database_url, listen_url=database_url)["listen"].verdict is Verdict.OK
    finding = checks(database_url, listen_url=empty_database_url)["listen"]
    assert finding.verdict is Verdict.PROBLEM
    assert "listen_url" in finding.found


@pytest.mark.parametrize(
    "setting", ["default_transaction_read_only=on", "synchronous_commit=off", "statement_timeout=200ms"]
)
def test_a_setting_that_an_engine_overrides_is_no_complaint(database_url: str, setting: str) -> None:
    """Of a role, a database or a URL: a direct session is set as it has to be."""
    assert checks(with_parameters(database_url, options=f"-c {setting}"))["settings"].verdict is Verdict.OK


SERVER = {"role": "me", "database": "shop", "standby": False, "idle_in_transaction_session_timeout": 10.0}
STANDBYS = {"synchronous_standby_names": "*"}


@pytest.mark.parametrize(
    ("server", "settings", "pooled", "verdict"),
    [
        ({}, {}, True, Verdict.OK),
        ({"standby": True}, {}, False, Verdict.PROBLEM),
        ({}, {"synchronous_commit": "off"}, True, Verdict.PROBLEM),
        ({}, {"synchronous_commit": "off"}, False, Verdict.OK),
        ({}, {"synchronous_commit": "local"} | STANDBYS, True, Verdict.PROBLEM),
        ({}, {"synchronous_commit": "local"}, True, Verdict.OK),
        ({}, {"statement_timeout": "1min"}, True, Verdict.PROBLEM),
        ({}, {"DateStyle": "German, DMY"}, True, Verdict.PROBLEM),
        ({"idle_in_transaction_session_timeout": 0.0}, {}, False, Verdict.OK),
        ({"idle_in_transaction_session_timeout": 0.0}, {}, True, Verdict.WARNING),
        ({}, {"random_page_cost": "4"}, False, Verdict.OK),
        ({}, {"random_page_cost": "4"}, True, Verdict.WARNING),
        ({}, {"random_page_cost": "0.04", "cpu_operator_cost": "2.5e-05", "jit": "off"}, True, Verdict.OK),
        ({}, {"enable_seqscan": "on"}, True, Verdict.WARNING),
    ],
)
def test_settings_weigh_behind_a_pooler(
    server: dict[str, Any], settings: dict[str, str | None], *, pooled: bool, verdict: Verdict
) -> None:
    """There an engine cannot set them for its sessions; each complaint comes with the statement that mends it."""
    finding = database.judge_settings(SERVER | server, settings, pooled=pooled)
    assert finding.verdict is verdict
    for name in settings if verdict is not Verdict.OK else ():
        if name != "synchronous_standby_names":
            assert f'ALTER ROLE "me" IN DATABASE "shop" SET {name} = ' in str(finding.advice)


def test_the_lines_of_the_page_are_those_of_pooled_sessions() -> None:
    """Whoever runs them has the planner's settings that direct sessions have, and is told of nothing."""
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    lines = mending(POOL, "worker", "shop")
    assert all(f"{line}\n" in page for line in lines)
    assert database.judge_settings(SERVER, dict(POOL), pooled=True).verdict is Verdict.OK


def test_a_full_database_is_a_problem(database_url: str, execute: Execute) -> None:
    """Connections are counted, and held against the limit that is reached first."""
    name = conninfo_to_dict(database_url)["dbname"]
    with ExitStack() as held:
        for _ in range(5):
            held.enter_context(psycopg.connect(database_url))
        execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT {5 + database.CONNECTIONS}')
        eventually(lambda: len(sessions(database_url)) == 5)  # the server takes its time to end one
        finding = checks(database_url)["connections"]
        assert finding.facts["used_by_database"] == 5
        assert "of the database" not in finding.found
        execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT {4 + database.CONNECTIONS}')
        eventually(lambda: len(sessions(database_url)) == 5)
        finding = checks(database_url)["connections"]
    assert finding.verdict is Verdict.PROBLEM
    assert f"5 of the {4 + database.CONNECTIONS} connections of the database are taken" in finding.found


@pytest.mark.parametrize(("used", "verdict"), [(10, Verdict.OK), (80, Verdict.WARNING), (94, Verdict.PROBLEM)], ids=str)
@pytest.mark.parametrize("whose", ["", "_by_role", "_by_database"])
def test_a_limit_that_is_nearly_reached_is_found(whose: str, used: int, verdict: Verdict) -> None:
    """Of the server, the role, or the database."""
    facts = {"max_connections": 1003, "reserved": 3, "role_limit": -1, "database_limit": 100}
    facts |= {"used": 1, "used_by_role": 1, "used_by_database": 1}
    limit = {"": "max_connections", "_by_role": "role_limit", "_by_database": "database_limit"}[whose]
    finding = database.judge_limits(facts | {limit: 103 if not whose else 100, f"used{whose}": used})
    assert finding.verdict is verdict


def test_an_engine_needs_as_many_connections_as_doctor_says(database_url: str) -> None:
    """All it has at once, when its pool has a single one."""
    with Engine(database_url, pool_size=1, lease=0.5):
        eventually(lambda: len(sessions(database_url)) == database.CONNECTIONS - 3)


def test_a_stale_lease_is_a_problem_if_nobody_goes_on_with_its_work(database_url: str, execute: Execute) -> None:
    """A warning beside a live worker, which will; and if it has no work."""
    stale = add_worker(execute, renewed="now() - interval '1 h'")
    finding = checks(database_url)["workers"]
    assert finding.verdict is Verdict.WARNING
    assert "process 4711 on far-away has not renewed its lease of 10.0 s for 1 h 0 min" in finding.found
    add_workflow(execute, status="running", owner=stale)
    finding = checks(database_url)["workers"]
    assert (finding.verdict, finding.facts["stale"]) == (Verdict.PROBLEM, 1)
    assert "has 1 running workflow" in finding.found
    add_worker(execute, pid=12)
    finding = checks(database_url)["workers"]
    assert (finding.verdict, finding.facts["live"], finding.facts["hosts"]) == (Verdict.WARNING, 1, ["far-away"])


def test_a_dead_worker_that_still_has_workflows_is_found(database_url: str, execute: Execute) -> None:
    """One that has none is history."""
    dead = add_worker(execute, state="dead", renewed="now() - interval '1 h'")
    assert checks(database_url)["workers"].found == "no worker is live"
    add_workflow(execute, status="running", owner=dead)
    finding = checks(database_url)["workers"]
    assert (finding.verdict, finding.facts["dead"]) == (Verdict.PROBLEM, 1)
    assert "is dead, and has 1 running" in finding.found


def test_a_lease_from_the_future_is_found(database_url: str, execute: Execute) -> None:
    """The database's clock was set back: its silence says nothing."""
    add_worker(execute, renewed="now() + interval '1 h'")
    assert "ahead of the database's clock" in checks(database_url)["workers"].found


def test_work_that_nobody_serves_is_found(database_url: str, execute: Execute) -> None:
    """A problem if no worker is live; a warning for a queue of which nothing runs; fine where something does."""
    add_workflow(execute, queue="reports")
    finding = checks(database_url)["work"]
    assert finding.verdict is Verdict.PROBLEM
    assert "1 workflow waits in queue 'reports' and none runs; the oldest is 1 h 0 min old" in finding.found
    assert "--queue reports" in str(finding.advice)
    worker_id = add_worker(execute)
    assert checks(database_url)["work"].verdict is Verdict.WARNING
    add_workflow(execute, status="running", queue="reports", owner=worker_id)
    finding = checks(database_url)["work"]
    assert (finding.verdict, finding.facts["queues"][0]["waiting"]) == (Verdict.OK, 1)


def test_a_name_that_no_worker_knows_is_found(database_url: str, execute: Execute) -> None:
    """Once a worker serves the queue: otherwise it is the queue that nobody serves."""
    with Engine(database_url, executes=False) as client:
        for name, queue in (("mistyped", "q"), ("known", "q"), ("mistyped", "other")):
            client.workflows.start(name, queue=queue)
    add_worker(execute)
    execute("UPDATE dbosflow.worker SET queues = '{q}', names = '{known}'")
    finding = checks(database_url)["work"]
    assert finding.verdict is Verdict.WARNING
    assert "1 workflow 'mistyped' waits in queue 'q', and no worker of it knows 'mistyped'" in finding.found
    assert [row["name"] for row in finding.facts["unknown"]] == ["mistyped"]
    execute("UPDATE dbosflow.worker SET names = NULL")  # an older one, which may know any
    assert checks(database_url)["work"].facts["unknown"] == []


def test_blocked_workflows_are_a_warning(database_url: str, execute: Execute) -> None:
    add_workflow(execute, status="blocked")
    finding = checks(database_url)["work"]
    assert (finding.verdict, finding.facts["blocked"]) == (Verdict.WARNING, 1)
    assert "--status blocked" in str(finding.advice)


def test_suspended_workflows_that_nobody_wakes_are_found(database_url: str, execute: Execute) -> None:
    """A problem if no worker is live; those that are to wait longer are none."""
    add_workflow(execute, status="waiting")
    finding = checks(database_url)["work"]
    assert (finding.verdict, finding.facts["suspended"]) == (Verdict.OK, {"waiting": 1, "overdue": 0})
    assert "1 is suspended" in finding.found
    execute("UPDATE dbosflow.workflow SET wake_at = now() - interval '5 min'")
    assert checks(database_url)["work"].verdict is Verdict.PROBLEM
    add_worker(execute)
    assert checks(database_url)["work"].verdict is Verdict.WARNING


def test_a_check_that_fails_does_not_hide_the_others(database_url: str, execute: Execute) -> None:
    """A schema that somebody has broken, for one."""
    execute("ALTER TABLE dbosflow.worker RENAME COLUMN lease TO rent")
    found = checks(database_url)
    assert list(found) == ALL
    assert found["workers"].verdict is Verdict.PROBLEM
    assert "could not be checked" in found["workers"].found
    assert found["work"].verdict is Verdict.OK
