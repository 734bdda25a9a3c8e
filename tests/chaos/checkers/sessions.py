"""Checks sessions and leases: each process has what it may have, and none that has stopped keeps any."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, LiteralString

import psycopg

if TYPE_CHECKING:
    from collections.abc import Mapping

SESSIONS_A_WORKER = 11
"""A worker lease, its renewer, LISTEN, NOTIFY, the waker while somebody waits, hub, enqueuer, and a pool of four."""

_LISTENERS: LiteralString = """
    SELECT application_name, count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND query ILIKE 'LISTEN%' AND application_name LIKE 'chaos-%'
    GROUP BY 1 HAVING count(*) > 1"""


def check_sessions(url: str, live: Mapping[str, int]) -> list[str]:
    """Each program that lives has no more sessions than it may, others have none; none idles in a transaction."""
    with psycopg.connect(url, autocommit=True, application_name="looking") as connection:
        found = connection.execute(
            "SELECT application_name, state, pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND backend_type = 'client backend' AND application_name <> 'looking'"
            " ORDER BY application_name"
        ).fetchall()
    wrong = [f"session {pid} of {name} is {state}" for name, state, pid in found if (state or "").startswith("idle in")]
    for name, sessions in groupby(found, key=lambda row: row[0]):
        if (count := len([*sessions])) > live.get(name, 0):
            wrong.append(f"{name} has {count} sessions, and may have {live.get(name, 0)}")
    return wrong


def check_leases(url: str) -> list[str]:
    """After every worker has stopped, no lease is live and no workflow has an owner."""
    with psycopg.connect(url, autocommit=True, application_name="looking") as connection:
        live = connection.execute("SELECT pid, renewed_at::text FROM dbosflow.worker WHERE state = 'live'").fetchall()
        owned = connection.execute("SELECT id, status FROM dbosflow.workflow WHERE worker_id IS NOT NULL").fetchall()
    return [f"the lease of process {pid}, renewed at {at}, is live" for pid, at in live] + [
        f"workflow {workflow_id} ({status}) has an owner" for workflow_id, status in owned
    ]


def check_listeners(url: str) -> list[str]:
    """No program listens over more than one session."""
    with psycopg.connect(url, autocommit=True, application_name="looking") as connection:
        found = connection.execute(_LISTENERS).fetchall()
    return [f"{name} listens over {count} sessions" for name, count in found]
