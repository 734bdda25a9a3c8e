"""The causes of a workflow's state, each found by a small function from rows."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from dbosflow._records.pins import claimed_queue, partition_of, queue_of, version_of
from dbosflow._records.spaces import token_of, topic_of
from dbosflow._store.explain import MANY
from dbosflow.management.explanation import Cause
from dbosflow.unreadable import Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg.rows import DictRow

    from dbosflow._store.explain import Facts
    from dbosflow.management.explanation import CauseCode
    from dbosflow.types import WorkflowInfo

_SUSPECT = 3
"""Deaths in a row from which on a workflow runs alone; see ``_runtime/execution/quarantine.py``."""


def causes_of(facts: Facts) -> list[Cause]:
    """What a workflow waits for, the most important cause first."""
    return [cause for find in _FINDERS.get(facts.subject["status"], _ENDED) for cause in find(facts)]


def _ended(facts: Facts) -> Iterator[Cause]:
    error = _error(facts.subject["error"])
    yield _cause(facts, "ended", f"it has ended{error}: it waits for nothing", until=facts.subject["ended_at"])


def _blocked(facts: Facts) -> Iterator[Cause]:
    how = (
        "deploy code that fits its records (`dbosflow replay` tells) and resume it, cancel it, or fork it from an "
        "earlier step"
    )
    yield _cause(facts, "blocked", f"it is parked{_error(facts.subject['error'])}", how)


def _cancel_requested(facts: Facts) -> Iterator[Cause]:
    subject = facts.subject
    if subject["cancel_requested"]:
        reason = f" ({subject['cancel_reason']})" if subject["cancel_reason"] else ""
        what = "its deadline has passed" if subject["timed_out"] else f"its cancellation was requested{reason}"
        what += ", and it has not ended yet"
        yield _cause(facts, "cancel-requested", what, "the worker that has it, or the next one that takes it, ends it")


def _no_worker(facts: Facts) -> Iterator[Cause]:
    if not facts.workers:
        what = "it waits for a worker, and none is live"
        yield _cause(facts, "no-worker", what, f"start `{_worker_command(facts.subject)}`")


def _no_worker_of_its_version(facts: Facts) -> Iterator[Cause]:
    stored = facts.subject["queue"]
    version = version_of(stored)
    if version is not None and facts.workers and not _serving(facts):
        what = f"it is pinned to version {version!r}, and no live worker{_of_its_queue(facts)} carries that"
        yield _cause(facts, "unknown-version", what, f"start `{_worker_command(facts.subject)}`, or unpin it")


def _of_its_queue(facts: Facts) -> str:
    queue = queue_of(facts.subject["queue"])
    return f" of its queue {queue!r}" if queue else ""


def _no_worker_of_its_queue(facts: Facts) -> Iterator[Cause]:
    queue = facts.subject["queue"]
    if version_of(queue) is None and facts.workers and not _serving(facts):
        what = f"no live worker serves its queue {queue_of(queue)!r}"
        yield _cause(facts, "no-worker-of-queue", what, f"start `{_worker_command(facts.subject)}`")


def _unknown_name(facts: Facts) -> Iterator[Cause]:
    serving, name = _serving(facts), facts.subject["name"]
    if serving and not _knowing(facts):
        what = f"no live worker{_of_its_queue(facts)} knows the workflow {name!r}"
        yield _cause(facts, "unknown-name", what, f"import its module in a worker{_of_its_queue(facts)}")


def _suspect(facts: Facts) -> Iterator[Cause]:
    subject = facts.subject
    if subject["recoveries"] >= _SUSPECT:
        what = f"its workers died {subject['recoveries']} times in a row without a new record, so it runs alone"
        yield _cause(facts, "suspect", what, "a worker takes it that has no other suspect, and nothing else beside it")


def _paused(facts: Facts) -> Iterator[Cause]:
    limits = facts.limits
    if limits is not None and limits["paused"]:
        until = limits["pause_ends_at"]
        what = f"its queue {limits['name']!r} is paused{'' if until is None else f' until {_moment(until)}'}"
        yield _cause(facts, "paused", what, f"`dbosflow queue resume {shlex.quote(limits['name'])}`", until=until)
    if limits is not None and limits["bucket_paused"]:
        bucket, until = limits["bucket"], limits["bucket_pause_ends_at"]
        what = f"bucket {bucket!r}, whose rate its queue {limits['name']!r} has, is paused"
        what += "" if until is None else f" until {_moment(until)}"
        yield _cause(facts, "paused", what, f"`dbosflow queue resume --bucket {shlex.quote(bucket)}`", until=until)


def _limit(facts: Facts) -> Iterator[Cause]:
    limits = facts.limits
    if limits is not None and limits["concurrency"] is not None and limits["running"] >= limits["concurrency"]:
        what = (
            f"{limits['running']} workflows of its queue {limits['name']!r} run, and its limit for all workers is "
            f"{limits['concurrency']}"
        )
        yield _cause(facts, "limit", what, "the end of one of them, or a higher limit")


def _partition_limit(facts: Facts) -> Iterator[Cause]:
    limits = facts.limits
    most = None if limits is None else limits["partition_concurrency"]
    if limits is not None and most is not None and limits["partition_running"] >= most:
        what = (
            f"{limits['partition_running']} workflows {_of_partition(facts)} of its queue {limits['name']!r} run, and "
            f"its limit for each partition is {most}"
        )
        yield _cause(facts, "limit", what, "the end of one of them, or a higher limit")


def _rate(facts: Facts) -> Iterator[Cause]:
    limits = facts.limits
    if limits is not None and limits["rate_ends_at"] is not None and facts.subject["epoch"] == 0:
        rate, units = f"{limits['rate_count']} in {limits['rate_period']:g} s", facts.subject["units"]
        whose = f"its queue {limits['name']!r}"
        if limits["bucket"] is not None:
            whose = f"bucket {limits['bucket']!r}, which {whose} draws on,"
        what = f"the rate of {whose} lets {rate} begin, and no more now{f'; it has {units} units' if units > 1 else ''}"
        yield _cause(facts, "rate", what, "a higher rate, or some time", until=limits["rate_ends_at"])
    if limits is not None and limits["partition_rate_ends_at"] is not None and facts.subject["epoch"] == 0:
        units = facts.subject["units"]
        what = (
            f"the rate for each partition of its queue {limits['name']!r} lets {limits['partition_rate_count']} in "
            f"{limits['partition_rate_period']:g} s {_of_partition(facts)} begin, and no more now"
            f"{f'; it has {units} units' if units > 1 else ''}"
        )
        yield _cause(facts, "rate", what, "a higher rate, or some time", until=limits["partition_rate_ends_at"])


def _slot(facts: Facts) -> Iterator[Cause]:
    assert facts.queue is not None
    if _knowing(facts) and facts.subject["recoveries"] < _SUSPECT:
        ahead, running = _number(facts.queue["ahead"]), _number(facts.queue["running"])
        what = f"it waits for a free slot: {ahead} are before it in its queue, and {running} of the queue run"
        yield _cause(facts, "slot", what, "a run that ends makes room, and so does another worker of the queue")


def _delay(facts: Facts) -> Iterator[Cause]:
    wake_at = facts.subject["wake_at"]
    yield _cause(facts, "delay", f"it is to begin at {_moment(wake_at)}", until=wake_at)


def _suspended(facts: Facts) -> Iterator[Cause]:
    wake_at, error = facts.subject["wake_at"], facts.subject["error"]
    if error is not None:
        what = f"the last worker that had it could not read it{_error(error)}: it waits until {_moment(wake_at)}"
        yield _cause(facts, "unreadable", what, "a worker of its queue that has the key, or the codec", until=wake_at)
        return
    until = "" if wake_at is None else f", at the latest at {_moment(wake_at)}"
    yield _cause(facts, "suspended", f"it only waits, and has left memory until something comes{until}", until=wake_at)


def _owner(facts: Facts) -> Iterator[Cause]:
    """Who has a running workflow, and whether that worker is alive."""
    subject = facts.subject
    where = f"process {subject['owner_pid']} on {subject['owner_host']}"
    help_ = "another worker takes it over within seconds" if facts.workers else "start a worker: it takes it over"
    if subject["owner_state"] != "live":
        yield _cause(facts, "dead-owner", f"its worker, {where}, is dead", help_)
    elif subject["owner_silent"] > subject["owner_lease"]:
        what = f"its worker, {where}, has not renewed its lease for {subject['owner_silent']:.0f} s"
        yield _cause(facts, "silent-owner", what, help_)
    else:
        yield _cause(facts, "running", f"it runs in {where}")


def _bodies(facts: Facts) -> Iterator[Cause]:
    for row in facts.bodies:
        what = f"step {row['key']!r} is in attempt {row['attempt']}, which has written to a stream"
        yield _cause(facts, "step", what, "its end")


def _retries(facts: Facts) -> Iterator[Cause]:
    for row in facts.retries:
        what = f"step {row['key']!r} has failed {_times(row['failures'])}{_error(row['error'])}"
        wake_at = row["wake_at"]
        if wake_at is not None and wake_at > facts.subject["now"]:
            yield _cause(facts, "retry", f"{what}; the next attempt begins at {_moment(wake_at)}", until=wake_at)
        else:
            yield _cause(facts, "retry", f"{what}; another attempt runs, or follows after its pause")


def _timers(facts: Facts) -> Iterator[Cause]:
    for row in facts.timers:
        wake_at = row["wake_at"]
        if row["kind"] == "sleep":
            yield _cause(facts, "timer", f"it sleeps at {row['key']!r} until {_moment(wake_at)}", until=wake_at)
        else:
            what = f"{row['key'].removesuffix('/until')!r} waits until {_moment(wake_at)} at the latest"
            yield _cause(facts, "timeout", what, until=wake_at)


def _waiters(facts: Facts) -> Iterator[Cause]:
    """What a suspended workflow waits for: a message, an answer, a stream, the end of another one."""
    own = facts.subject["id"]
    for row in facts.waiters:
        target, key = row["target_id"], row["key"]
        if key is None:
            what = f"it waits for workflow {target!r} ({row['status'] or 'which is not there'})"
            yield _cause(facts, "workflow", what, "that one's end", related=(target,))
        elif topic_of(key) != key:
            yield _cause(facts, "message", f"it waits for a message on topic {topic_of(key)!r}", "a message")
        elif token_of(key) != key:
            yield _cause(facts, "answer", f"it waits for the answer to the token of {token_of(key)!r}", "an answer")
        else:
            whose, related = ("its own", ()) if target == own else (f"that of workflow {target!r}", (target,))
            yield _cause(facts, "stream", f"it reads stream {key!r}, {whose}", "news in it", related=related)


def _children(facts: Facts) -> Iterator[Cause]:
    if not facts.children:
        return
    ids = tuple(row["id"] for row in facts.children)
    more = facts.children[0]["workflows"] - len(ids)
    shown = ", ".join(f"{row['id']!r} ({row['status']})" for row in facts.children)
    what = f"children that it has started have not ended: {shown}{f' and {more} more' if more else ''}"
    yield _cause(facts, "child", what, "their end, if it waits for them", related=ids)


def _outbox(facts: Facts) -> Iterator[Cause]:
    """Messages of committed transactions that it could not get yet."""
    for row in facts.outbox:
        what = f"{row['messages']} messages on topic {topic_of(row['key'])!r} wait in the outbox since "
        what += _moment(row["since"])
        how = "room in its inbox, which it makes by receiving" if facts.workers else "a worker, which sends them"
        yield _cause(facts, "outbox", what, how)


def in_outbox(start: WorkflowInfo, *, any_worker: bool) -> Cause:
    """Why a workflow is not there whose start is committed."""
    what = f"its start was committed, and is in the outbox since {_moment(start.created_at)}"
    how = "a worker starts it within a second" if any_worker else "start a worker: none is live"
    return Cause("outbox", start.id, what, how)


def _deadline(facts: Facts) -> Iterator[Cause]:
    deadline = facts.subject["deadline_at"]
    if deadline is not None:
        yield _cause(facts, "deadline", f"it has a deadline, {_moment(deadline)}", until=deadline)


_WORKERS = (_no_worker, _no_worker_of_its_version, _no_worker_of_its_queue, _unknown_name)
_QUEUED = (_cancel_requested, *_WORKERS, _paused, _limit, _partition_limit, _rate, _suspect, _slot)
_INSIDE = (_retries, _timers, _waiters, _children, _outbox)
_ENDED: tuple[Callable[[Facts], Iterator[Cause]], ...] = (_ended,)
_FINDERS: dict[str, tuple[Callable[[Facts], Iterator[Cause]], ...]] = {
    "queued": (*_QUEUED, _outbox, _deadline),
    "scheduled": (_cancel_requested, _delay, _outbox, _deadline),
    "waiting": (_cancel_requested, _suspended, *_INSIDE, _deadline),
    "running": (_cancel_requested, _owner, _bodies, *_INSIDE, _deadline),
    "blocked": (_blocked,),
}
"""What may hold up a workflow in each status."""


def _serving(facts: Facts) -> list[DictRow]:
    """The live workers that serve the workflow's queue, as far as they say; old code never takes what is pinned."""
    stored = claimed_queue(facts.subject["queue"])
    silent = version_of(stored) is None
    return [row for row in facts.workers if (silent if row["queues"] is None else stored in row["queues"])]


def _knowing(facts: Facts) -> list[DictRow]:
    """Those of them that know the workflow's function, as far as they say."""
    return [row for row in _serving(facts) if row["names"] is None or facts.subject["name"] in row["names"]]


def _cause(facts: Facts, code: CauseCode, text: str, frees: str = "", **more: Any) -> Cause:
    return Cause(code, facts.subject["id"], text, frees, **more)


def _worker_command(subject: DictRow) -> str:
    queue, version = queue_of(subject["queue"]), version_of(subject["queue"])
    options = [f" --queue {shlex.quote(queue)}"] if queue else []
    options += [] if version is None else [f" --version-name {shlex.quote(version)}"]
    return f"dbosflow worker MODULE{''.join(options)}"


def _error(text: str | None) -> str:
    """The class and message of an error, in parentheses."""
    if isinstance(text, Unreadable):
        return f" ({text})"
    record = json.loads(text) if text else None
    return f" ({record.get('type')}: {record.get('message')})" if isinstance(record, dict) else ""


def _moment(at: Any) -> str:
    return "an unknown time" if at is None else str(at.astimezone().isoformat(" ", "seconds"))


def _of_partition(facts: Facts) -> str:
    key = partition_of(facts.subject["queue"])
    return "without a partition key" if key is None else f"of partition {key!r}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _number(count: int) -> str:
    return str(count) if count < MANY else f"{MANY} or more"
