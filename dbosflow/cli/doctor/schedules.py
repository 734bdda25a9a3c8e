"""Judges the schedules, from facts that were collected before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbosflow.cli.console import counted, duration
from dbosflow.cli.doctor.finding import Finding, Verdict, judged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dbosflow.cli.doctor.finding import Complaint

_LATE = 60.0
"""Seconds after its time from which on a tick is late."""


def judge_schedules(rows: Sequence[Mapping[str, Any]], *, any_worker: bool) -> Finding:
    """Whether schedules are served, belong to code that is there, and wait for nothing that is blocked."""
    complaints: list[Complaint] = []
    for row in rows:
        name = row["name"]
        if row["paused_because"] == "gone":
            what = f"schedule {name!r} is paused, because {row['module']} declares it no longer"
            complaints.append((Verdict.WARNING, what, f"`dbosflow schedule delete {name}`, if that is meant"))
        if row["paused_because"] is not None:
            continue
        if (row["late"] or 0) > _LATE:
            what = f"schedule {name!r} should have started a workflow {duration(row['late'])} ago"
            if any_worker:
                advice = "each worker serves all schedules: look at a worker's log"
                complaints.append((Verdict.WARNING, what, advice))
            else:
                complaints.append((Verdict.PROBLEM, what, "no worker is live: start one"))
        elif any_worker and row["module"] is not None and not row["declared"]:
            what = f"schedule {name!r} goes on, and no live worker's code has it: it was declared in {row['module']}"
            advice = f"start a worker with that module, or pause it: `dbosflow schedule pause {name}`"
            complaints.append((Verdict.WARNING, what, advice))
        if row["overlap"] != "allow" and row["blocked"]:
            what = f"schedule {name!r} starts nothing while its workflow {row['blocked']!r} is blocked"
            complaints.append((Verdict.WARNING, what, f"`dbosflow workflow show {row['blocked']}` says why it is"))
    paused = sum(row["paused_because"] is not None for row in rows)
    fine = f"{counted(len(rows), 'schedule')}{f', {paused} of them paused' if paused else ''}"
    return judged("schedules", complaints, fine, {"schedules": [dict(row) for row in rows]})
