"""Tries the engine behind PgBouncer in transaction mode: ``python -m tests.pgbouncer [PYTEST ARGUMENTS]``.

Starts an embedded Postgres and a PgBouncer before it on loopback, looks at what a pooler changes (LISTEN is taken and
never delivers, sessions are handed on), and runs a part of the suite through it. Root installs PgBouncer by the way,
to others it says what to install. Not a part of ``.ci/run``. The exit status is 0 if all passed, 1 if not, 3 if
there is no PgBouncer.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from functools import partial
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
from psycopg import sql

from dbosflow import Engine, step, workflow, write_stream_async
from dbosflow._embedded import EmbeddedServer
from dbosflow.errors import ConfigurationError
from tests import pooler
from tests.behaviour.tables import disorder
from tests.chaos.nodes.pair import Pair
from tests.conftest import POOLER_VARIABLE, URL_VARIABLE
from tests.pooler import Pooler, find_program
from tests.support import eventually, with_parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MISSING = 3
PATIENCE = 60.0
NEVER: dict[str, Any] = {"safety_poll": 600.0, "fast_poll": 600.0}
SUITE = [
    *(
        f"tests/behaviour/test_{name}.py"
        for name in (
            *("calls", "children", "context", "failures", "payloads", "queues", "results", "retries"),
            *("sleeps", "start_once", "stream_values", "wrong_input"),
        )
    ),
    "tests/operating/test_units.py",
    # These promise what a pooler cannot give: news without polls, a log without its warning, parameters of the session.
    *("-k", "not when_it_comes and not warn_and_change_nothing and not without_its_rights"),
]


@contextmanager
def database(server_url: str, parameters: str) -> Iterator[tuple[str, str]]:
    """A database of its own: the URL through the pooler, and the direct one."""
    name = f"pooled_{uuid4().hex}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    direct = with_parameters(server_url, dbname=name)
    given = {key: str(value) for key, value in psycopg.conninfo.conninfo_to_dict(parameters).items()}
    yield with_parameters(direct, **given), direct


# -- what a pooler changes -------------------------------------------------------------------------------------------


@step
async def doubled(number: int) -> int:
    """A step."""
    return 2 * number


@workflow
async def counting(count: int) -> int:
    """Steps, and a value after each."""
    total = 0
    for number in range(count):
        total += await doubled(number)
        await write_stream_async("totals", total)
    return total


def check_detection(pooled: str, direct: str) -> None:
    """The engine finds out that nothing is delivered, and says once what to do; not where that is done, or no need."""
    for url, settings, expected in ((pooled, {}, 1), (pooled, {"listen_url": direct}, 0), (direct, {}, 0)):
        with TemporaryFile("w+") as log:
            handler = logging.StreamHandler(log)
            logging.getLogger("dbosflow.engine").addHandler(handler)
            with Engine(url, executes=False, **settings):
                pass
            logging.getLogger("dbosflow.engine").removeHandler(handler)
            log.seek(0)
            warnings = [line for line in log if "pooler in transaction mode" in line and "listen_url=" in line]
        assert len(warnings) == expected


def check_polling(pooled: str, direct: str) -> None:
    """Without LISTEN work and readers of another engine still get on, by polls alone."""
    with Engine(pooled) as worker, Engine(pooled, executes=False) as client, working(worker):
        handles = [client.start(counting.options(queue="q"), 20) for _ in range(20)]
        for handle in handles:
            assert len(list(client.read_stream(handle.workflow_id, "totals", timeout=PATIENCE))) == 20
            assert handle.result(timeout=PATIENCE) == 380


def check_listen_url(pooled: str, direct: str) -> None:
    """With a direct way to LISTEN, and polls switched off, everything still arrives: by hints alone."""
    with (
        Engine(pooled, listen_url=direct, **NEVER) as worker,
        Engine(pooled, listen_url=direct, executes=False, **NEVER) as client,
        working(worker),
    ):
        for _ in range(10):
            handle = client.start(counting.options(queue="q"), 5)
            assert len(list(client.read_stream(handle.workflow_id, "totals", timeout=PATIENCE))) == 5
            assert handle.result(timeout=PATIENCE) == 20


def check_no_prepared_statements(pooled: str, direct: str) -> None:
    """None is prepared, and no setting is left behind, in the sessions that the pooler hands on."""
    check_polling(pooled, direct)
    for _ in range(20):
        with psycopg.connect(pooled, prepare_threshold=None) as connection:
            assert connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
            assert connection.execute("SHOW enable_seqscan").fetchone() == ("on",)


def check_settings(pooled: str, direct: str) -> None:
    """Its sessions are those of their role: what is wrong with them is refused, and what the error says mends it."""
    for setting, value in (("DateStyle", "German"), ("statement_timeout", "1min"), ("synchronous_commit", "off")):
        with psycopg.connect(direct, autocommit=True) as connection:
            name = sql.Identifier(connection.info.dbname)
            connection.execute(sql.SQL("ALTER DATABASE {} SET {} = {}").format(name, sql.SQL(setting), value))
    between = psycopg.conninfo.conninfo_to_dict(pooled)
    admin = psycopg.conninfo.make_conninfo(pooled, dbname="pgbouncer")
    with psycopg.connect(admin, autocommit=True, prepare_threshold=None) as connection:
        connection.pgconn.exec_(f'RECONNECT "{between["dbname"]}"'.encode())
        for _ in range(3):
            with suppress(ConfigurationError), Engine(pooled, executes=False):
                raise AssertionError
        try:
            Engine(pooled, executes=False).open()
        except ConfigurationError as error:
            mending = str(error).partition(" Run ")[2].partition(" Then have")[0]
            assert all(setting in mending for setting in ("DateStyle", "statement_timeout", "synchronous_commit"))
            with psycopg.connect(direct, autocommit=True) as mended:
                mended.execute(mending.encode())
        connection.pgconn.exec_(f'RECONNECT "{between["dbname"]}"'.encode())
    check_polling(pooled, direct)


@workflow
async def counting_slowly(count: int) -> int:
    """The same with pauses."""
    total = 0
    for number in range(count):
        total += await doubled(number)
        await write_stream_async("totals", total)
        await asyncio.sleep(0.02)
    return total


def check_failover(program: str) -> None:
    """Led to a standby that has lost commits, as an administrator does it, the pooler breaks no connection of ours.

    The runs begin anew all the same, from what that server has.
    """
    with Pair(synchronous=False) as pair, Pooler(program, pair.primary.url("pooler")) as between:

        def records() -> int:
            ((count,),) = pair.primary.ask("SELECT count(*) FROM dbosflow.step")
            return int(count)

        with Engine(between.url()) as engine:
            handles = [engine.start(counting_slowly, 100) for _ in range(10)]
            for goal in (100, 300):
                eventually(lambda goal=goal: records() > goal)  # type: ignore[misc]
                if pair.standby.running:
                    pair.standby.stop("stop fast")
            between.order("PAUSE")
            acknowledged = records()
            pair.primary.kill()
            pair.standby.start()
            pair.promote()
            assert records() < acknowledged
            between.lead_to(pair.primary.url("pooler"))
            between.order("RELOAD")
            between.order("RESUME")
            assert [handle.result(timeout=PATIENCE) for handle in handles] == [9900] * 10
        assert disorder(pair.url("looking")) == []
    pair.discard()


@contextmanager
def working(engine: Engine) -> Iterator[None]:
    """The engine serves queue ``q``; to be closed right after the block."""
    serving = threading.Thread(target=engine.run_worker, args=("q",), daemon=True)
    serving.start()
    yield


CHECKS: list[Callable[[str, str], None]] = [
    check_detection,
    check_polling,
    check_listen_url,
    check_no_prepared_statements,
    check_settings,
]


def on_a_database(check: Callable[[str, str], None], server_url: str, parameters: str) -> None:
    """Runs a check on a database of its own."""
    with database(server_url, parameters) as (pooled, direct):
        check(pooled, direct)


def passes(check: Callable[..., None], run: Callable[[], None]) -> bool:
    """Whether a check passes; says so."""
    try:
        run()
    except Exception as error:  # noqa: BLE001 (it is said)
        print(f"FAIL {check.__name__}: {type(error).__name__}: {error}", flush=True)
        return False
    print(f"PASS {check.__name__}", flush=True)
    return True


def suite_passes(server_url: str, parameters: str, arguments: list[str]) -> bool:
    """Whether the part of the suite passes through the pooler."""
    environment = os.environ | {URL_VARIABLE: server_url, POOLER_VARIABLE: parameters}
    command = [sys.executable, "-m", "pytest", "-q", *(arguments or SUITE)]
    well = subprocess.run(command, env=environment, check=False).returncode == 0
    print(f"{'PASS' if well else 'FAIL'} {' '.join(arguments) or 'the suite through the pooler'}", flush=True)
    return well


def main() -> int:
    """Runs the checks, then the tests."""
    program = find_program()
    if program is None:
        print(pooler.MISSING)
        return MISSING
    with EmbeddedServer.ephemeral() as server, Pooler(program, server.url) as between:
        passed = [passes(one, partial(on_a_database, one, server.url, between.parameters)) for one in CHECKS]
        passed.append(passes(check_failover, partial(check_failover, program)))
        passed.append(suite_passes(server.url, between.parameters, sys.argv[1:]))
        print(*between.complaints(), sep="\n", file=sys.stderr)
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
