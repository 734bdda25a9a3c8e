"""Judges the server and the connection to it, from facts that were collected before."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

import psycopg

from dbosflow._sessions import mending, unplanned, wrong
from dbosflow._store.statements import quoted
from dbosflow.cli.console import duration
from dbosflow.cli.doctor.finding import Finding, Verdict, judged
from dbosflow.config import VERSION, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg import AsyncConnection

    from dbosflow.cli.doctor.finding import Complaint

OLDEST_SERVER = 14

CONNECTIONS = Settings().pool_size + 4
"""The most connections of an executing engine: its pool, the worker lease, the lease's renewer, LISTEN, NOTIFY."""

_FULL = 0.8
"""The share of the server's connections from which on there is a warning: a second deployment may not find its own."""


def judge_connection(connection: AsyncConnection[Any]) -> Finding:
    """The server that the URL leads to, without a password."""
    info = connection.info
    facts = {
        "host": info.host,
        "port": info.port,
        "database": info.dbname,
        "user": info.user,
        "tls": connection.pgconn.ssl_in_use,
        "server": info.parameter_status("server_version"),
    }
    tls = "with TLS" if facts["tls"] else "by a local socket" if info.host.startswith("/") else "without TLS"
    where = f"{info.host}:{info.port}, database {info.dbname!r}, user {info.user!r}, {tls}"
    return judged("connection", judge_server(info.server_version), f"connected to {where}", facts)


def judge_server(version: int) -> list[Complaint]:
    """A complaint if the server is too old. ``version`` is in libpq's form, like 140011."""
    if version >= OLDEST_SERVER * 10_000:
        return []
    what = f"this is Postgres {version // 10_000}"
    return [(Verdict.PROBLEM, what, f"dbosflow needs Postgres {OLDEST_SERVER} or newer")]


def judge_versions(connection: AsyncConnection[Any]) -> Finding:
    """The versions of all parts, for a bug report."""
    facts = {
        "dbosflow": VERSION,
        "python": platform.python_version(),
        "psycopg": psycopg.__version__,
        "libpq": psycopg.pq.version_pretty(psycopg.pq.version()),
        "postgres": connection.info.parameter_status("server_version"),
    }
    return Finding("versions", Verdict.OK, ", ".join(f"{name} {one}" for name, one in facts.items()), None, facts)


def judge_clock(ahead: float, round_trip: float) -> Finding:
    """The difference between the database's clock and ours. Leases and timers only use the database's clock."""
    where = "ahead of" if ahead >= 0 else "behind"
    found = f"the database's clock is {duration(abs(ahead))} {where} this machine's; only the database's is used"
    return Finding("clock", Verdict.OK, found, None, {"ahead": ahead, "round_trip": round_trip})


def judge_listen(delay: float | None, *, is_direct: bool, pooled: bool) -> Finding:
    """Whether a NOTIFY reaches a LISTEN, and how fast."""
    facts = {"heard": delay is not None, "seconds": delay, "pooled": pooled}
    if delay is not None:
        return Finding("listen", Verdict.OK, f"a NOTIFY reaches a LISTEN in {duration(delay)}", None, facts)
    if is_direct:
        what = "a NOTIFY at the database's URL does not reach a LISTEN at the listen_url"
        advice = "give the direct URL of the same database, past any pooler: as it is, wake-ups take seconds"
        return Finding("listen", Verdict.PROBLEM, what, advice, facts)
    what = (
        "a NOTIFY does not reach a LISTEN: there seems to be a pooler in transaction mode. "
        f"Engines poll each {Settings().fast_poll:g} s instead, which costs queries"
    )
    advice = "give engines listen_url=, a direct URL, for wake-ups at once; try it with --listen-url"
    return Finding("listen", Verdict.WARNING, what, advice, facts)


def judge_settings(server: Mapping[str, Any], settings: Mapping[str, str | None], *, pooled: bool) -> Finding:
    """Settings that break promises: those of the server, and behind a pooler also those of the role."""
    facts = {**server, **settings, "pooled": pooled}
    facts.pop("clock", None)
    complaints: list[Complaint] = []
    if server["standby"]:
        advice = "give the primary's URL, or several hosts with target_session_attrs=read-write"
        complaints.append((Verdict.PROBLEM, "this server is a standby: nothing can be written", advice))
    if not pooled:
        return judged("settings", complaints, "each session is set as it has to be, whatever its role's are", facts)
    role, database = quoted(server["role"]), quoted(server["database"])
    for name, what in wrong(settings).items():
        statements = " ".join(mending([name], role, database))
        complaints.append((Verdict.PROBLEM, what, f"{statements} Then have the pooler connect anew"))
    if not server["idle_in_transaction_session_timeout"]:
        complaints.append(
            (
                Verdict.WARNING,
                "idle_in_transaction_session_timeout is not set: a worker that vanishes may keep its lock",
                f"ALTER ROLE {role} SET idle_in_transaction_session_timeout = '{Settings().lease:g}s'",
            )
        )
    if costs := unplanned(settings):
        what = (
            "the planner's settings are not those of direct sessions, in which statements use indexes, however old the "
            "statistics are: a claim or a read may scan a table that has grown since it was analyzed"
        )
        complaints.append((Verdict.WARNING, what, " ".join(mending(costs, role, database))))
    return judged(
        "settings", complaints, "the role's are as sessions need them, and no time limit is in the way", facts
    )


def judge_limits(found: Mapping[str, Any]) -> Finding:
    """Whether connections are left: on the server, in the database, for the role."""
    limits = [
        ("the server", found["max_connections"] - found["reserved"], found["used"], "raise max_connections"),
        ("the database", found["database_limit"], found["used_by_database"], "raise the database's CONNECTION LIMIT"),
        ("this role", found["role_limit"], found["used_by_role"], "raise the role's CONNECTION LIMIT"),
    ]
    complaints: list[Complaint] = []
    for whose, limit, used, advice in limits:
        if limit < 0:  # there is no limit
            continue
        what = f"{used} of the {limit} connections of {whose} are taken; an engine needs up to {CONNECTIONS}"
        if limit - used < CONNECTIONS:
            complaints.append((Verdict.PROBLEM, what, f"end idle sessions, {advice}, or put a pooler between"))
        elif used >= _FULL * limit:
            complaints.append((Verdict.WARNING, what, f"{advice} before more workers come, or put a pooler between"))
    _, limit, used, _ = limits[0]
    fine = f"{used} of {limit} connections are taken; an engine needs up to {CONNECTIONS}"
    return judged("connections", complaints, fine, {**found, "needed": CONNECTIONS})
