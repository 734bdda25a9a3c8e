"""Judges the schema, the workers and the workflows, from facts that were collected before."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from dbosflow._records.pins import version_of
from dbosflow._store.migrate import CODE_GENERATION, HEAD
from dbosflow.cli.console import counted, duration
from dbosflow.cli.doctor.finding import Finding, Verdict, judged
from dbosflow.config import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dbosflow.cli.doctor.finding import Complaint

LONG = Settings().lease
"""Seconds that work may wait without a sign that a worker serves its queue."""

OLD = 30 * 86400.0
"""Seconds after its end from which on a workflow counts as old: few are asked for later."""
MANY = 100_000
"""Old workflows from which on it is worth to remove them."""

_AS_OWNER = "run `dbosflow migrate` as the role that owns the schema, or is to own it"


def judge_schema(schema: str, state: tuple[str, int] | None, rights: Mapping[str, Any]) -> Finding:
    """Whether schema and code fit together, and the role's rights. ``state`` is None if the role may not even look."""
    revision, oldest_code = state or (None, 0)
    facts = {"schema": schema, "revision": revision or None, "newest": HEAD, **rights}
    may_migrate = rights["may_migrate"]
    complaints: list[Complaint] = []
    if revision == "":
        how = "the first worker or engine makes it, and so does `dbosflow migrate`" if may_migrate else _AS_OWNER
        what = f"this database has no schema {schema!r}{'' if may_migrate else ', and this role may not make it'}"
        complaints.append(
            (Verdict.WARNING if may_migrate else Verdict.PROBLEM, what, f"{how}; is it the right database?")
        )
    elif oldest_code > CODE_GENERATION:
        what = (
            f"schema {schema!r} is at revision {revision} and needs code of generation {oldest_code}, "
            f"this is generation {CODE_GENERATION}"
        )
        complaints.append((Verdict.PROBLEM, what, "upgrade dbosflow on this machine"))
    elif revision is not None and revision < HEAD:
        how = "the next engine that opens migrates it, and so does `dbosflow migrate`" if may_migrate else _AS_OWNER
        what = f"schema {schema!r} is at revision {revision}, this code has {HEAD}"
        what += "" if may_migrate else ", and this role may not migrate it"
        complaints.append((Verdict.WARNING if may_migrate else Verdict.PROBLEM, what, how))
    if revision != "" and not rights["may_use"]:
        what = f"this role may not use schema {schema!r}"
        complaints.append((Verdict.PROBLEM, what, "grant it USAGE on the schema"))
    if rights["missing"]:
        lacks = ", ".join(f"{'/'.join(lacks)} on {table}" for table, lacks in rights["missing"].items())
        advice = "grant it SELECT, INSERT, UPDATE, DELETE on the schema's tables"
        complaints.append((Verdict.PROBLEM, f"this role lacks {lacks}", advice))
    fine = f"{schema!r} is at revision {revision}, and this role may use {'and migrate ' if may_migrate else ''}it"
    return judged("schema", complaints, fine, facts)


def judge_workers(rows: Sequence[Mapping[str, Any]]) -> Finding:
    """Whether the leases are renewed, and no dead worker has left workflows."""
    live = [row for row in rows if row["state"] == "live" and abs(row["silent"]) <= row["lease"]]
    lost = [row for row in rows if row not in live]
    facts = {
        "live": len(live),
        "stale": sum(row["state"] == "live" for row in lost),
        "dead": sum(row["state"] == "dead" for row in lost),
        "hosts": sorted({row["host"] for row in live}),
        "versions": sorted({row["version"] for row in live}),
        "oldest_renewal": max((row["silent"] for row in live), default=None),
        "workers": [dict(row) for row in rows],
    }
    complaints: list[Complaint] = []
    for row in lost:
        what = (
            f"process {row['pid']} on {row['host']} {_state(row)}, and has {counted(row['runs'], 'running workflow')}"
        )
        if live:
            advice = "a live worker takes over within seconds; if it stays like this, look at that worker's log"
            complaints.append((Verdict.WARNING, what, advice))
        elif row["runs"]:
            complaints.append((Verdict.PROBLEM, what, "start a worker: it goes on with what others left"))
        else:
            complaints.append((Verdict.WARNING, what, "nothing to do: the next worker clears it away"))
    runs = sum(row["runs"] for row in live)
    silence = "" if not live else f"; the longest silence is {duration(max(facts['oldest_renewal'], 0))}"
    where, what = counted(len(facts["hosts"]), "host"), counted(runs, "running workflow")
    fine = f"live: {len(live)} on {where}, with {what}{silence}"
    return judged("workers", complaints, fine if live else "no worker is live", facts)


def _state(row: Mapping[str, Any]) -> str:
    if row["state"] == "dead":
        return "is dead"
    if row["silent"] < 0:
        return f"renewed its lease {duration(-row['silent'])} ahead of the database's clock"
    return f"has not renewed its lease of {duration(row['lease'])} for {duration(row['silent'])}"


def judge_work(
    queues: Sequence[Mapping[str, Any]],
    blocked: int,
    stranded: Mapping[str, int],
    *,
    unknown: Sequence[Mapping[str, Any]] = (),
    any_worker: bool,
    suspended: Mapping[str, int] = MappingProxyType({"waiting": 0, "overdue": 0}),
) -> Finding:
    """Whether waiting workflows are served, and none is parked.

    Workers of older code do not say which queues they serve: so the sign of a queue without workers is that workflows
    wait in it and none runs.
    """
    facts = {"blocked": blocked, "stranded": dict(stranded), "suspended": dict(suspended)}
    facts |= {"queues": [dict(row) for row in queues]}
    facts["unknown"] = [dict(row) for row in unknown]
    complaints: list[Complaint] = []
    for row in queues:
        if row["longest"] < LONG or row["running"] or version_of(row["queue"]) is not None:
            continue
        where = f"in queue {row['queue']!r}" if row["queue"] else "without a queue, for any worker,"
        option = f" --queue {row['queue']}" if row["queue"] else ""
        what = f"{_waiting(row)} {where} and none runs; the oldest is {duration(row['longest'])} old"
        if any_worker:
            complaints.append((Verdict.WARNING, what, f"is there a worker{option} that knows these workflows?"))
        else:
            complaints.append((Verdict.PROBLEM, what, f"no worker is live: start `dbosflow worker MODULE{option}`"))
    for version, count in sorted(stranded.items()):
        pinned = counted(count, "unfinished workflow is", "unfinished workflows are")
        what = f"{pinned} pinned to version {version!r}, which no live worker carries"
        advice = f"start workers with --version-name {version}, or `dbosflow workflow unpin` them"
        complaints.append((Verdict.WARNING, what, advice))
    for row in unknown:
        of_name = counted(row["waiting"], f"workflow {row['name']!r} waits", f"workflows {row['name']!r} wait")
        what = f"{of_name} in queue {row['queue']!r}, and no worker of it knows {row['name']!r}"
        advice = (
            "import their module in a worker of that queue, or `dbosflow workflow cancel` them, if the name is wrong"
        )
        complaints.append((Verdict.WARNING, what, advice))
    if blocked:
        advice = "`dbosflow workflow list --status blocked` names them, `dbosflow workflow show ID` says why"
        complaints.append((Verdict.WARNING, counted(blocked, "workflow is blocked", "workflows are blocked"), advice))
    if overdue := suspended["overdue"]:
        what = f"{counted(overdue, 'suspended workflow')} should have been woken a minute ago or more"
        if any_worker:
            complaints.append((Verdict.WARNING, what, "each worker wakes them: look at a worker's log"))
        else:
            complaints.append((Verdict.PROBLEM, what, "no worker is live: start one"))
    waiting = sum(row["waiting"] for row in queues)
    asleep = f", {counted(suspended['waiting'], 'is', 'are')} suspended" if suspended["waiting"] else ""
    return judged("work", complaints, f"{_waiting({'waiting': waiting})} for a worker{asleep}, none is blocked", facts)


def _waiting(row: Mapping[str, Any]) -> str:
    return counted(row["waiting"], "workflow waits", "workflows wait")


def judge_outbox(found: Mapping[str, Any], *, any_worker: bool) -> Finding:
    """Whether what users' transactions have committed is applied."""
    facts = {**found, "ids": found["ids"] or []}
    complaints: list[Complaint] = []
    if found["rows"] and found["longest"] > LONG:
        what = f"{found['rows']} starts and messages wait in the outbox, the oldest for {duration(found['longest'])}"
        if any_worker:
            shown = " and ".join(f"`dbosflow workflow explain {one}`" for one in facts["ids"])
            complaints.append((Verdict.WARNING, what, f"the receivers' inboxes may be full: {shown} say more"))
        else:
            complaints.append((Verdict.PROBLEM, what, "no worker is live: start one"))
    return judged("outbox", complaints, f"{found['rows']} starts and messages wait in the outbox", facts)


def judge_retention(found: Mapping[str, Any] | None) -> Finding:
    """Whether old workflows pile up. ``found`` is None if the schema is too old to have a retention."""
    facts = dict(found or {"workflows": None, "is_on": False, "bytes": None})
    if found is None:
        return Finding("retention", Verdict.OK, "this schema has no retention yet", None, facts)
    days = f"{OLD / 86400:.0f} days"
    size = f"all tables have {found['bytes'] / 1024**3:.1f} GiB"
    if found["is_on"]:
        return Finding(
            "retention", Verdict.OK, f"a worker removes old workflows in the background; {size}", None, facts
        )
    complaints: list[Complaint] = []
    if found["workflows"] > MANY:
        what = f"more than {MANY:,} workflows ended more than {days} ago, and no worker removes old ones; {size}"
        advice = "run workers with --retention 30d, or `dbosflow prune --older-than 30d`, if nobody needs them"
        complaints.append((Verdict.WARNING, what, advice))
    fine = f"{counted(found['workflows'], 'workflow')} ended more than {days} ago; {size}"
    return judged("retention", complaints, fine, facts)
