"""The transitions of a workflow, a lease and their streams, each as one session does it, on a small prepared world.

In that world worker ``one`` owns workflow ``w``, which has an input, a stream and a record; ``q`` waits in the queue;
worker ``gone`` is silent, and owns ``g``; ``b`` is blocked; ``e`` has ended, with a stream of small blocks; ``s`` is
suspended, waits for the end of ``w``, and its time has come as well. The deadline of ``w`` has passed.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbosflow._store import fork, retention, stream, waiter, worker, workflow
from dbosflow._store.batch_rows import InputRow, StartRow
from dbosflow._store.notify import workflow_topic
from dbosflow._store.queries import fetch_all
from dbosflow._store.waiter import Target
from tests.proof.machine import EMPTY
from tests.protocol.schedules import ELSEWHERE, NAME, SCHEMA, Database, Slice, WorkerLease, batch, cancel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    import psycopg

Session = Any
LEASE = 10.0
QUICK = "SET lock_timeout = '10s'; SET deadlock_timeout = '50ms'"


@dataclass
class World:
    """The workers at the start."""

    one: UUID
    gone: UUID
    seen: list[worker.SurveyedLease]
    """What a reclaimer has seen of them before anything happened."""


async def prepare(db: Database, workers: tuple[UUID, UUID]) -> World:
    """The world, the same each time."""
    await db.rows(EMPTY)
    for worker_id in workers:
        await worker.register(db.admin, SCHEMA, worker_id=worker_id, lease=LEASE, process=ELSEWHERE, version="0")
    one, gone = (WorkerLease(worker_id, db.admin) for worker_id in workers)
    rows = batch(starts=("w", "e"))
    rows.starts = [StartRow._make(row)._replace(input_streams='["in"]') for row in rows.starts]
    rows.starts += batch(starts=("s",)).starts
    await one.send(rows)
    await gone.start("g")
    await one.write(Slice("w").record("before").values(0, 2))
    for offset in range(4):
        await one.write(Slice("e").values(offset))
    await one.write(Slice("e").closed(4).end(), Slice("s").suspended(Target("w"), delay=0.0))
    await workflow.enqueue(db.admin, SCHEMA, [workflow.Enqueued(one, NAME, "", 0, "{}") for one in ("q", "b")])
    await db.rows("UPDATE dbosflow.workflow SET status = 'blocked', epoch = 1, recoveries = 10 WHERE id = 'b'")
    await db.rows("UPDATE dbosflow.workflow SET deadline_at = now() - interval '1 s' WHERE id = 'w'")
    await stream.append(db.admin, SCHEMA, [("w", "in", 1, "values", "[0]", 3, "k:0")])
    await db.rows("UPDATE dbosflow.worker SET renewed_at = renewed_at - interval '1 hour' WHERE id = %s", workers[1])
    seen = [lease for lease in await worker.survey(db.admin, SCHEMA) if lease.id == workers[1]]
    return World(*workers, seen)


def _ending() -> Any:
    rows = batch(Slice("w").record("last", seq=1).values(2).closed(3).end())
    rows.inputs = [InputRow("w", "in", "complete", None, 0, 1)]
    return rows


async def _reclaimed(session: Session, world: World) -> Any:
    return await worker.mark_dead(session, SCHEMA, world.seen, "expired")


async def _requeued(session: Session, _: World) -> Any:
    return [row["id"] for row in await workflow.requeue(session, SCHEMA, max_recoveries=10)]


async def _written(session: Session, world: World, rows: Any) -> Any:
    result = await WorkerLease(world.one, session).send(rows)
    return result.leased, result.written, sorted(result.started)


async def _started(session: Session, world: World) -> Any:
    return await _written(session, world, batch(starts=("new", "q")))


async def _recorded(session: Session, world: World) -> Any:
    return await _written(session, world, batch(Slice("w").record("a", seq=1).values(2)))


async def _ended(session: Session, world: World) -> Any:
    return await _written(session, world, _ending())


async def _suspended(session: Session, world: World) -> Any:
    return await _written(session, world, batch(Slice("w").suspended(Target("e"), Target("w", "in", 1), delay=0.0)))


async def _woken(session: Session, _: World) -> Any:
    woken, _is_left = await waiter.wake_by_topic(session, SCHEMA, [workflow_topic("w"), workflow_topic("e")])
    return woken


async def _woken_in_time(session: Session, _: World) -> Any:
    return len(await waiter.wake_due(session, SCHEMA))


async def _cancelled_suspended(session: Session, _: World) -> Any:
    return await _cancelled(session, _, "s")


async def _claimed(session: Session, world: World) -> Any:
    return [(one.id, one.epoch, one.cancel_request) for one in await WorkerLease(world.one, session).claim()]


async def _cancelled(session: Session, _: World, workflow_id: str = "w") -> Any:
    return [(row["id"], row["status"]) for row in await cancel(session, workflow_id)]


async def _cancelled_waiting(session: Session, _: World) -> Any:
    return await _cancelled(session, _, "q")


async def _cancelled_blocked(session: Session, _: World) -> Any:
    return await _cancelled(session, _, "b")


async def _expired(session: Session, _: World) -> Any:
    return sorted((row["id"], row["status"]) for row in await workflow.expire(session, SCHEMA, limit=10))


async def _resumed(session: Session, _: World) -> Any:
    return [(row["status"], row["queue"]) for row in await workflow.resume(session, SCHEMA, ["b", "e"])]


async def _released(session: Session, world: World) -> Any:
    await worker.release(session, SCHEMA, world.one)


async def _handed_over(session: Session, world: World) -> Any:
    return await workflow.release(session, SCHEMA, world.one, [("w", 1)])


async def _renewed(session: Session, world: World) -> Any:
    ids = [world.one, world.gone]
    return len(await fetch_all(session, SCHEMA, "worker", "renew", ids=ids))


async def _enqueued(session: Session, _: World) -> Any:
    rows = [workflow.Enqueued(one, NAME, "", 0, "{}") for one in ("new", "later")]
    return sorted(await workflow.enqueue(session, SCHEMA, rows))


async def _appended(session: Session, _: World, kind: str = "values") -> Any:
    values = "[1]" if kind == "values" else None
    found = await stream.append(session, SCHEMA, [("w", "in", 1, kind, values, 3, f"k:{kind}")])
    return [(one.offset, one.ended) for one in found]


async def _input_closed(session: Session, _: World) -> Any:
    return await _appended(session, _, "complete")


async def _trimmed(session: Session, _: World, workflow_id: str = "e") -> Any:
    return await retention.trim(session, SCHEMA, workflow_id, "out", 2)


async def _compacted(session: Session, _: World) -> Any:
    return await retention.compact(session, SCHEMA, "e", "out", 0, max_blocks=100, max_bytes=10_000)


async def _pruned(session: Session, _: World) -> Any:
    with suppress(retention.WritersCommitError):  # its caller asks again
        return await retention.prune(session, SCHEMA, 0.0, 10)


async def _deleted(session: Session, _: World) -> Any:
    with suppress(retention.WritersCommitError):
        return await retention.delete(session, SCHEMA, ["e", "w"], children=True)


async def _forked(session: Session, _: World, workflow_id: str = "w") -> Any:
    found = await fork.fork(session, SCHEMA, fork.ForkRequest(workflow_id, f"fork of {workflow_id}", 1))
    return None if found is None else (found.queue, found.truncated, found.taken)


async def _ended_forked(session: Session, _: World) -> Any:
    return await _forked(session, _, "e")


TRANSITIONS: dict[str, Callable[[psycopg.AsyncConnection[Any], World], Awaitable[Any]]] = {
    "start": _started,
    "enqueue": _enqueued,
    "claim": _claimed,
    "record": _recorded,
    "end": _ended,
    "suspend": _suspended,
    "wake by a hint": _woken,
    "wake in time": _woken_in_time,
    "cancel what is suspended": _cancelled_suspended,
    "cancel": _cancelled,
    "cancel what waits": _cancelled_waiting,
    "resume": _resumed,
    "cancel what is blocked": _cancelled_blocked,
    "deadline": _expired,
    "release": _released,
    "hand over": _handed_over,
    "renew": _renewed,
    "reclaim": _reclaimed,
    "requeue": _requeued,
    "append": _appended,
    "close an input": _input_closed,
    "trim": _trimmed,
    "compact": _compacted,
    "prune": _pruned,
    "delete": _deleted,
    "fork": _forked,
    "fork what has ended": _ended_forked,
}

_STATE = {
    "workflow": (
        "id, status, epoch, worker_id::text, cancel_requested_at IS NOT NULL, timed_out, recoveries, "
        "ended_at IS NOT NULL"
    ),
    "step": "workflow_id, key, epoch, seq",
    "stream_block": 'workflow_id, key, "offset", count, kind, values::text, producer, epoch',
    "stream_trim": "workflow_id, key, producer, count",
    "waiter x JOIN dbosflow.workflow w ON w.id = x.workflow_id AND w.status = 'waiting'": "x.workflow_id, topic, key",
    "worker": "id::text, state, ended_because, renewed_at > now() - interval '30 minutes'",
}


async def state(db: Database) -> list[Any]:
    """All that the tables hold, but for times."""
    return [
        await db.rows(f"SELECT {columns} FROM dbosflow.{table} ORDER BY 1, 2, 3") for table, columns in _STATE.items()
    ]
