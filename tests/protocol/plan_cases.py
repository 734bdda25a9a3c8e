"""The statements of the pool, a worker's rarer ones and the listings, with values, and what each may cost."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dbosflow._store import listing, statements
from dbosflow._store.start_options import StartOptions
from dbosflow.filters import WorkflowFilter
from tests.protocol.plans import CROWD, explain, populate, prepare
from tests.protocol.schedules import NAME, SCHEMA, Database

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from psycopg import AsyncConnection

    from tests.protocol.plans import Plan

OWNED = 1000
"""Workflows that the worker runs."""
ROLLED_BACK = 30
"""Rows that the cases before have written and rolled back may stand in an index until the server prunes a page."""
RUNNING = 40
"""Workflows of the queue with limits that run."""
PARTITIONS = 100
PARTITIONS_OF_A_LOOK = 64
BLOCKS = 500
"""Blocks of the long stream."""
DEAD = 1000
"""Workers that have died."""

WORKER = object()
"""Stands for the worker's id among the values of a case."""
LONG: dict[str, Any] = {"workflow_id": "long", "key": "out"}
FIRST_ID = "00000000-0000-0000-0000-000000000000"
MANY = [f"w{number}" for number in range(1, 21)]
THE_BEGINNING = datetime.min.replace(tzinfo=UTC)

AGES = {"finished_age": 0.0, "failed_age": 0.0}
A_PART = {
    "after_at": THE_BEGINNING,
    "after_id": "",
    "until_at": THE_BEGINNING,
    "until_id": "z",
    "kept_names": ["a", "b"],
    "kept_since": [THE_BEGINNING, THE_BEGINNING],
}

KEY = frozenset({"workflow_pkey"})
BY_AGE = frozenset({"workflow_created"})
FORKS = frozenset({"workflow_forked"})
STEPS = frozenset({"step_pkey"})
STREAMS = frozenset({"stream_block_pkey"})
INPUTS = frozenset({"stream_block_pkey", "stream_block_input"})
BACK = frozenset({"stream_block_rollback"})
TRIMS = frozenset({"stream_trim_pkey"})
OUTBOX = frozenset({"outbox_pkey"})
ATTRIBUTES = frozenset({"attribute_pkey"})
DEDUP = frozenset({"dedup_pkey"})
RATES = frozenset({"partition_rate_pkey"})
OUTBOX_START = frozenset({"outbox_start_pkey"})
LISTED = ATTRIBUTES | {"attribute_value"}
SLEEPS = {"suffixes": ["/woken", "/given-up"], "over_kinds": ["woken", "given_up"]}
FORKED: dict[str, Any] = {"workflow_id": "w5", "fork_id": "new", "turn": 5, "step_key": "a", "output": "1"}
FORKED |= {"anew": True, "queue": None, "found": ["patched"]}


@dataclass(frozen=True)
class Case:
    """A statement, how it may get at each table, and how many rows its busiest part may handle."""

    statement: str
    values: Mapping[str, Any]
    work: int
    workflow: frozenset[str] = frozenset()
    step: frozenset[str] = frozenset()
    stream_block: frozenset[str] = frozenset()
    stream_trim: frozenset[str] = frozenset()
    attribute: frozenset[str] = frozenset()
    outbox: frozenset[str] = frozenset()
    dedup: frozenset[str] = frozenset()
    outbox_start: frozenset[str] = frozenset()
    partition_rate: frozenset[str] = frozenset()

    def text(self) -> str:
        """The statement as psycopg takes it."""
        table, name, *sections = re.split(r"[.+]", self.statement)
        return statements.load(table, SCHEMA, *sections)[name]

    def complaint(self, plan: Plan, more_rows: int) -> str | None:
        """What the plan does that it may not."""
        for table in (
            "workflow",
            "step",
            "stream_block",
            "stream_trim",
            "attribute",
            "outbox",
            "dedup",
            "outbox_start",
            "partition_rate",
        ):
            if more := plan.access(table) - getattr(self, table):
                return f"{self.statement}: reads {table} by {', '.join(sorted(more))}"
        return f"{self.statement}: handles {plan.work:g} rows" if plan.work > self.work + more_rows else None


def appended(kind: str, *ids: str) -> dict[str, Any]:
    """A block of that kind for the input of each of these."""
    count, values = len(ids), "[1]" if kind == "values" else None
    return {
        "ids": list(ids),
        "keys": ["in"] * count,
        "counts": [1] * count,
        "kinds": [kind] * count,
        "values": [values] * count,
        "bytes": [3] * count,
        "producers": [f"w:new{number}" for number in range(count)],
        "known_runs": [None] * count,
        "known_offsets": [None] * count,
        "known_bytes": [None] * count,
        "max_values": None,
        "max_bytes": None,
    }


def sent(*ids: str) -> dict[str, Any]:
    """A message to each of these, on a new topic."""
    count = len(ids)
    return {
        "ids": list(ids),
        "keys": ["dbosflow/inbox/new"] * count,
        "counts": [1] * count,
        "values": ["[1]"] * count,
        "bytes": [3] * count,
        "producers": [f"w:new{number}" for number in range(count)],
        "max_values": 1000,
        "max_topics": 10,
    }


def deduplicated(policy: str, *numbers: int) -> dict[str, Any]:
    """Starts with keys that workflows have."""
    count = len(numbers)
    options: dict[str, Any] = {f"option_{name}": [None] * count for name in StartOptions._fields}
    return options | {
        "ids": [f"new{number}" for number in numbers],
        "queues": [""] * count,
        "keys": [f"k{number}" for number in numbers],
        "policies": [policy] * count,
        "longest": [None] * count,
        "names": [NAME] * count,
        "stored_queues": [""] * count,
        "priorities": [0] * count,
        "inputs": ["{}"] * count,
        "input_streams": [None] * count,
        "reason": "r",
    }


ALL = WorkflowFilter()


@dataclass(frozen=True)
class Listing(Case):
    """A listing of workflows, or what chooses how."""

    which: WorkflowFilter = ALL
    source: str = "by_age"

    def text(self) -> str:
        """The statement as it is put together for the filter."""
        name = self.statement.partition(".")[2]
        return listing._statement(name, self.source, (*listing._sections(self.which), "records", "in_all"), SCHEMA)


def listed(source: str, work: int, *, statement: str = "listing.page", **which: Any) -> Listing:
    """A page of a listing of workflows."""
    filtered = WorkflowFilter(**which)
    values = {**listing._values(filtered), "before_at": "infinity", "before_id": "", "limit": 100, "scan": 1000}
    indexes = INDEXES[source] | (BY_AGE if statement == "listing.count" else frozenset())
    return Listing(statement, values, work, workflow=indexes | KEY, attribute=LISTED, which=filtered, source=source)


INDEXES = {
    "by_age": BY_AGE,
    "by_status": frozenset({"workflow_unsuccessful"}),
    "by_owner": frozenset({"workflow_queued", "workflow_owned"}),
    "by_parent": frozenset({"workflow_parent"}),
    "by_attribute": KEY,
    "by_origin": frozenset({"workflow_forked"}),
}
"""What each source of a listing reads workflows by."""


CLAIMED = frozenset(
    {"workflow_queued", "workflow_suspected", "workflow_slot", "workflow_owned", "workflow_partitioned"}
)


def claimed_from(name: str, *hinted: str) -> dict[str, Any]:
    """The parameters of a look at a queue with limits."""
    place = {"after_lap": -1, "after_key": "", "until_key": "", "hinted": list(hinted)}
    return {"worker_id": WORKER, "name": name, "queue": name, "names": [NAME], "suspects": True, **place}


POOL = (
    Case(
        "stream.append", appended("values", "q5", "q5", "q6"), 20, workflow=KEY, stream_block=INPUTS, stream_trim=TRIMS
    ),
    Case(
        "stream.append",
        appended("values", *(f"q{n}" for n in range(1, 21))),
        400,
        workflow=KEY,
        stream_block=INPUTS,
        stream_trim=TRIMS,
    ),
    Case(
        "stream.append",
        appended("values", "q5", "q5", "q6") | {"max_values": 1000, "max_bytes": 10000},
        30,
        workflow=KEY,
        stream_block=INPUTS,
        stream_trim=TRIMS,
    ),
    Case("stream.append", appended("complete", "q5"), 5, workflow=KEY, stream_block=INPUTS, stream_trim=TRIMS),
    Case("message.send", sent("q5", "q5", "q6"), 30, workflow=KEY, stream_block=INPUTS, stream_trim=TRIMS),
    Case("message.send", sent("long"), 20, workflow=KEY, stream_block=INPUTS, stream_trim=TRIMS),
    Case("stream.tail", LONG, 1, stream_block=STREAMS),
    Case("stream.backwards", LONG | {"before": 400, "max_blocks": 10}, 10, stream_block=STREAMS),
    Case("stream.emitted", {"workflow_id": "w5", "key": "out", "producer": ""}, 4, stream_block=STREAMS),
    Case("stream.list", {"workflow_id": "w5", "key": None, "reserved": False}, 8, stream_block=STREAMS),
    Case("stream.list", {"workflow_id": "w5", "key": "out", "reserved": False}, 8, stream_block=STREAMS),
    Case(
        "message.resolve",
        {
            "workflow_id": "w5",
            "operation": "first",
            "secret": "s",
            "record": None,
            "key": "dbosflow/token/first",
            "kind": "complete",
            "payload": "1",
            "bytes": 1,
            "producer": "w:new",
        },
        5,
        workflow=KEY,
        step=STEPS,
        stream_block=STREAMS,
    ),
    Case("outbox.pending", {"after": "", "limit": 20}, 60, outbox=OUTBOX, workflow=KEY, outbox_start=OUTBOX_START),
    Case("outbox.apply_starts", {"ids": MANY}, 60, outbox=OUTBOX, workflow=KEY),
    Case("outbox.waiting_start", {"workflow_id": "w5"}, 5, outbox=OUTBOX),
    Case("outbox.keyed", {"after_queue": "", "after_key": "", "limit": 20}, 100, outbox_start=OUTBOX_START),
    Case("outbox.waiting_keyed", {"workflow_id": "s5"}, 5, outbox_start=OUTBOX_START | {"outbox_start_start"}),
    Case("dedup.look", deduplicated("replace", *range(20)), 60, workflow=KEY, dedup=DEDUP),
    Case("dedup.reserve", deduplicated("replace", *range(20)), 60, workflow=KEY, dedup=DEDUP),
    *(
        Case("dedup.decide", deduplicated(policy, *range(20)), 200, workflow=KEY, dedup=DEDUP, attribute=ATTRIBUTES)
        for policy in ("replace", "cancel_running")
    ),
    Case(
        "message.send+outbox",
        {
            **{name: [] for name in ("ids", "keys", "counts", "values", "bytes", "producers")},
            "targets": MANY,
            "max_rows": 5,
            "max_bytes": 10_000,
            "max_values": 1000,
            "max_topics": 10,
        },
        len(MANY) * 3 * len(MANY) * 3,  # each message is compared with each
        outbox=OUTBOX,
        workflow=KEY,
        stream_block=INPUTS,
        stream_trim=TRIMS,
    ),
    Case("message.event", LONG | {"committed": True}, 5, workflow=KEY, stream_block=STREAMS | BACK, step=STEPS),
    Case("message.events", {"workflow_id": "long"}, 5, stream_block=STREAMS),
    Case("retention.hold", {"workflow_id": "long"}, 1, workflow=KEY),
    Case("retention.trim", LONG | {"before": 10}, 20, stream_block=STREAMS, stream_trim=TRIMS),
    Case("retention.trim+join", LONG | {"before": 10}, 20, stream_block=STREAMS, stream_trim=TRIMS),
    Case("retention.first", LONG, 1, stream_block=STREAMS),
    Case("retention.trimmed", LONG | {"producer": ""}, 1, stream_trim=TRIMS),
    Case("retention.ended_after", {"created_at": THE_BEGINNING, "id": "", "limit": 100}, 200, workflow=BY_AGE),
    Case("retention.scattered", {"workflow_id": "long", "least": 4, "max_bytes": 1000}, BLOCKS, stream_block=STREAMS),
    Case("retention.claim_ended", {"workflow_id": "long"}, 1, workflow=KEY),
    Case("retention.compact", LONG | {"start": 0, "max_blocks": 100, "max_bytes": 10_000}, 200, stream_block=STREAMS),
    Case("retention.choose", AGES | {"batch": 100}, 1500, workflow=BY_AGE | KEY | FORKS),
    Case("retention.choose+walk", AGES | A_PART | {"batch": 100}, 1500, workflow=BY_AGE | KEY | FORKS),
    Case("retention.pass_end", AGES | {"after_at": THE_BEGINNING, "after_id": "", "count": 100}, 200, workflow=BY_AGE),
    Case(
        "retention.choose_by_id",
        {"ids": MANY, "children": True},
        250,
        workflow=KEY | {"workflow_parent"},
    ),
    Case(
        "attribute.update",
        {"workflow_id": "w5", "removed": ["customer"], "names": ["region"], "values": ["1"]},
        5,
        workflow=KEY,
        attribute=ATTRIBUTES,
    ),
    Case("retention.committing", {"writers": ["1", "2"]}, 1000),
    Case(
        "retention.remove",
        {"ids": MANY},
        400,
        workflow=KEY | FORKS,
        step=STEPS,
        stream_block=STREAMS,
        stream_trim=TRIMS,
        attribute=ATTRIBUTES,
        dedup=DEDUP | {"dedup_workflow"},
    ),
    Case("workflow.started", {"ids": MANY}, len(MANY) + 1, workflow=KEY),
    Case("workflow.outcomes", {"ids": MANY}, len(MANY) + 1, workflow=KEY),
    Case(
        "workflow.cancel",
        {"ids": ["q5"], "statuses": None, "parent_id": None, "children": True, "reason": "r"},
        5,
        workflow=KEY | {"workflow_parent"},
        stream_block=STREAMS,
    ),
    Case(
        "workflow.cancel",
        {"ids": ["w50"], "statuses": None, "parent_id": None, "children": True, "reason": "r"},
        100,
        workflow=KEY | {"workflow_parent"},
        stream_block=STREAMS,
    ),
    Case(
        "workflow.cancel",
        {"ids": [], "statuses": None, "parent_id": "w50", "children": True, "reason": "r"},
        100,
        workflow=KEY | {"workflow_parent"},
        stream_block=STREAMS,
    ),
    Case("workflow.expire", {"limit": 10}, 10, workflow=KEY | {"workflow_deadline"}, stream_block=STREAMS),
    Case("workflow.next_due", {}, 1, workflow=frozenset({"workflow_deadline"})),
    Case("workflow.resume", {"ids": MANY}, 40, workflow=KEY),
    Case("workflow.requeue", {"max_recoveries": 10}, DEAD + 1, workflow=KEY | {"workflow_owned"}, stream_block=STREAMS),
    Case(
        "workflow.cancel_requests",
        {"worker_id": WORKER},
        OWNED + ROLLED_BACK,
        workflow=frozenset({"workflow_owned"}),
    ),
    Case("step.page", {"workflow_id": "w5", "turn": -1, "seq": -1, "limit": 10, **SLEEPS}, 20, step=STEPS),
    Case("step.attempts", {"workflow_id": "w5"}, 20, step=STEPS),
    Case("step.collected", {"workflow_id": "w5", "loop_key": "loop"}, 20, step=STEPS),
    Case("fork.place", {"workflow_id": "w5", "step_key": "a", "keys": ["a", "b"]}, 20, workflow=KEY, step=STEPS),
    Case("fork.beside", {"workflow_id": "w5", "turn": 1}, 20, step=STEPS),
    Case(
        "fork.fork",
        FORKED,
        400,
        workflow=KEY,
        step=STEPS,
        stream_block=STREAMS,
        stream_trim=TRIMS,
        attribute=ATTRIBUTES,
    ),
    Case("fork.children", {"workflow_id": "w5", "fork_id": "w8"}, 20, workflow=KEY, step=STEPS),
    Case("fork.open_tokens", {"fork_id": "w5", "turn": 5}, 20, step=STEPS, stream_block=STREAMS),
    Case("fork.taken", {"fork_id": "w8", "step_key": "a"}, 2, workflow=KEY, step=STEPS),
    Case("fork.end", {"workflow_id": "w5"}, 20, workflow=KEY, step=STEPS),
    Case("fork.failures", {"workflow_id": "w5", "silent": ["attempt"]}, 20, step=STEPS),
    Case("fork.started", {"workflow_id": "w5"}, 20, workflow=KEY, step=STEPS),
    Case("step.history", {"ids": ["w5", "w8"]}, 100, workflow=KEY, step=STEPS, stream_block=STREAMS, stream_trim=TRIMS),
)

WAITERS = (
    Case("waiter.somebody", {}, 1),
    Case("waiter.wake_by_topic", {"topics": ["t5", "t6"], "limit": 500}, 20, workflow=KEY),
    Case("waiter.wake", {"ids": MANY}, 20, workflow=KEY),
    Case("waiter.wake_due", {"limit": 10}, 20, workflow=KEY | {"workflow_due"}),
    Case("waiter.next_due", {}, 1, workflow=frozenset({"workflow_due"})),
    Case("waiter.forget", {"ids": MANY}, 20, workflow=KEY),
    Case(
        "waiter.news",
        {
            "ids": MANY + MANY,
            "keys": ["out"] * len(MANY) + [None] * len(MANY),
            "starts": [2] * 2 * len(MANY),
            "committed": [True, False] * len(MANY),
        },
        2 * len(MANY),
        workflow=KEY,
        step=STEPS,
        stream_block=STREAMS | BACK,
    ),
    Case("waiter.way", {"start": "s5", "stop": "s6"}, 10, workflow=KEY),
    Case("waiter.circles", {"ids": MANY}, 40, workflow=KEY),
    Case("waiter.statuses", {"ids": MANY}, 20, workflow=KEY),
    Case("waiter.waiters", {"workflow_id": "", "topic": "", "limit": 100}, 100, workflow=KEY),
)
"""What wakes suspended workflows. These look at the tables of ``crowded`` and of ``suspended``."""

LISTINGS: tuple[Case, ...] = (
    Case("reencryption.workflow_page", {"id": "w5", "limit": 10}, 20, workflow=KEY),
    Case("reencryption.step_page", {"workflow_id": "w5", "key": "", "limit": 10}, 20, step=STEPS),
    Case(
        "reencryption.stream_block_page",
        {"workflow_id": "w5", "key": "", "offset": -1, "limit": 10},
        20,
        stream_block=STREAMS,
    ),
    Case("reencryption.outbox_page", {"workflow_id": "w5", "id": FIRST_ID, "limit": 10}, 20, outbox=OUTBOX),
    Case(
        "reencryption.outbox_start_page",
        {"queue": "", "key": "", "id": FIRST_ID, "limit": 10},
        20,
        outbox_start=OUTBOX_START,
    ),
    Case("queue_limits.delete_even", {"queue": "rated parts", "key": ""}, 1000, partition_rate=RATES | {"Tid Scan"}),
    Listing("listing.show", {"workflow_id": "w5"}, 2, workflow=KEY, attribute=ATTRIBUTES),
    listed("by_age", 1001),
    listed("by_age", 1001, name=NAME, queue=""),
    listed("by_age", 1001, name="rare"),
    listed("by_age", 1001, id_prefix="rare"),
    listed("by_age", 1001, status="running", attributes={"customer": "customer5", "region": "region5"}),
    listed("by_status", 1001, status=["failed", "blocked"]),
    listed("by_owner", OWNED + CROWD // 4 + 10 * RUNNING + 15 * PARTITIONS + 1, status=["queued", "running"]),
    listed("by_parent", 50, parent_id="w50"),
    listed("by_attribute", 50, attributes={"customer": "customer5"}),
    listed("by_origin", 50, forked_from="w50"),
    listed("by_parent", 50, statement="listing.candidates", parent_id="w50"),
    listed("by_attribute", 50, statement="listing.candidates", attributes={"customer": "customer5"}),
    listed("by_owner", 1001, statement="listing.candidates", status="queued"),
)
"""Their sessions are told not to sort what an index has in order, whoever lends them."""

OF_THE_WORKER = (
    Case(
        "claim.claim",
        {"worker_id": WORKER, "queue": "", "limits": "", "names": [NAME], "limit": 10, "suspects": True},
        15,
        workflow=KEY | {"workflow_queued", "workflow_suspected"},
    ),
    Case(
        "queue.lock",
        claimed_from("limited"),
        OWNED + RUNNING,
        workflow=CLAIMED,
    ),
    *(
        Case(
            f"queue.{one}",
            claimed_from(name, *hinted) | {"limit": 10},
            4 * PARTITIONS_OF_A_LOOK,
            workflow=KEY | CLAIMED,
        )
        for one in ("lock", "claim")
        for name, *hinted in (("parts",), ("parts", "p1", "p100"), ("full parts", "p1", "p100"))
    ),
    Case(
        "queue.claim",
        claimed_from("limited") | {"limit": 10},
        OWNED + RUNNING,
        workflow=KEY | CLAIMED,
    ),
    *(
        Case(
            f"queue.{one}",
            claimed_from("rated parts", *hinted) | {"limit": 10},
            4 * PARTITIONS_OF_A_LOOK,
            workflow=KEY | CLAIMED,
            partition_rate=RATES,
        )
        for one in ("lock", "claim")
        for hinted in ((), ("p1", "p100"))
    ),
    Case("queue.exists", {"name": "limited", "queue": "parts"}, 1, workflow=frozenset({"workflow_partitioned"})),
    Case(
        "stream.fetch",
        {
            "ids": MANY,
            "keys": ["out"] * len(MANY),
            "starts": [2] * len(MANY),
            "committed": [True] * len(MANY),
            "max_blocks": 256,
            "max_bytes": 1 << 20,
        },
        4 * len(MANY),
        workflow=KEY,
        step=STEPS,
        stream_block=STREAMS | BACK,
    ),
    Case("transaction.fence", {"worker_id": WORKER, "workflow_id": "w2", "epoch": 1}, 1, workflow=KEY),
    Case("transaction.wait_for_commit", {"workflow_id": "w2"}, 1, workflow=KEY),
    Case("transaction.witness", {"workflow_id": "w2", "key": "step#0"}, 1, step=STEPS),
    Case("workflow.release", {"worker_id": WORKER, "ids": ["w2", "w4"], "epochs": [1, 1]}, 2, workflow=KEY),
    Case(
        "reencryption.workflow_rewrite",
        {"id": "w2", "input": "{}", "output": None, "error": None}
        | {"stored_input": "{}", "stored_output": None, "stored_error": None},
        1,
        workflow=KEY,
    ),
    Case(
        "reencryption.step_rewrite",
        {
            "workflow_id": "w2",
            "key": "step#0",
            "output": "1",
            "error": None,
            "stored_output": "1",
            "stored_error": None,
        },
        1,
        step=STEPS,
    ),
    Case(
        "workflow.put_off",
        {"worker_id": WORKER, "workflow_id": "w2", "epoch": 1, "error": "{}", "was_requested": False},
        1,
        workflow=KEY,
    ),
    Case("workflow.renew_epoch", {"worker_id": WORKER, "workflow_id": "w2", "epoch": 1}, 1, workflow=KEY),
    Case(
        "workflow.adopt",
        {"worker_id": WORKER, "queues": [""], "workflow_id": None, "known": MANY},
        2 * OWNED + ROLLED_BACK,
        workflow=frozenset({"workflow_owned"}) | KEY,
    ),
    Case("worker.renew", {"ids": [WORKER]}, 1),
)


async def crowded(db: Database, worker_id: UUID) -> None:
    """The tables of ``plans``, and of all that these statements look at far more than any of them is asked for."""
    await populate(db, worker_id=worker_id, owned=OWNED)
    await db.rows("UPDATE dbosflow.workflow SET ended_at = created_at WHERE status = 'succeeded'")
    await db.rows(
        """INSERT INTO dbosflow.workflow (id, name, status, input, input_streams, parent_id, deadline_at)
           SELECT 'q' || n, %s, 'queued', '{}', '{in}', 'w' || n / 10, now() + (n - 1) * interval '1 hour'
           FROM generate_series(0, %s / 4) n""",
        *(NAME, CROWD),
    )
    await db.rows(
        """INSERT INTO dbosflow.stream_block
               (workflow_id, key, "offset", count, kind, values, bytes, producer, producer_seq, epoch)
           SELECT 'q' || n, 'in', o, 1, 'values', '[1]'::json, 3, 'w:' || o, 0, 0
           FROM generate_series(1, %s / 4) n, generate_series(0, 1) o
           UNION ALL
           SELECT 'long', 'out', o, 1, 'values', '[1]', 3, '', o, 1 FROM generate_series(0, %s - 1) o""",
        *(CROWD, BLOCKS),
    )
    await db.rows(
        """INSERT INTO dbosflow.workflow (id, name, status, input, epoch, ended_at)
           VALUES ('long', %s, 'succeeded', '{}', 1, now())""",
        NAME,
    )
    await db.rows(
        """INSERT INTO dbosflow.step
               (workflow_id, key, kind, epoch, seq, turn, started_at, loop_key, loop_offset, loop_next)
           SELECT 'w' || n, 'item' || o, 'step', 1, o, o, now(), 'loop', o, 5
           FROM generate_series(1, 500) n, generate_series(0, 9) o"""
    )
    await db.rows(
        """INSERT INTO dbosflow.stream_trim (workflow_id, key, producer, count, bytes)
           SELECT 'w' || n, 'out', '', 1, 2 FROM generate_series(1, %s) n""",
        CROWD,
    )
    await db.rows(
        """INSERT INTO dbosflow.attribute (workflow_id, name, value)
           SELECT 'w' || n, name, '"' || name || n %% 1000 || '"'
           FROM generate_series(1, %s) n, unnest(ARRAY['customer', 'region']) name""",
        CROWD,
    )
    await db.rows(
        """INSERT INTO dbosflow.outbox (workflow_id, id, name, queue, key, payload)
           SELECT 'w' || n, gen_random_uuid(), CASE WHEN n %% 5 = 0 THEN 'f' END, CASE WHEN n %% 5 = 0 THEN '' END,
                  CASE WHEN n %% 5 <> 0 THEN 'dbosflow/inbox/t' END, '{}'
           FROM generate_series(1, %s) n, generate_series(1, 3)""",
        CROWD,
    )
    await db.rows(
        """INSERT INTO dbosflow.outbox_start (queue, key, id, start_id, input, request)
           SELECT '', 'k' || n, gen_random_uuid(), 's' || n, '{}', '{}'
           FROM generate_series(1, %s / 2) n, generate_series(1, 2)""",
        CROWD,
    )
    await db.rows(
        """INSERT INTO dbosflow.dedup (queue, key, workflow_id, start_id)
           SELECT '', 'k' || n, CASE WHEN n %% 2 = 0 THEN 'q' ELSE 'w' END || n, 's' || n
           FROM generate_series(0, %s) n""",
        CROWD,
    )
    await db.rows(
        """INSERT INTO dbosflow.workflow (id, name, status, queue, input, slot)
           SELECT 'l' || n, %s, CASE WHEN n <= %s THEN 'running' ELSE 'queued' END, 'limited', '{}', 'limited'
           FROM generate_series(1, 10 * %s) n""",
        *(NAME, RUNNING, RUNNING),
    )
    await db.rows(
        """INSERT INTO dbosflow.workflow (id, name, status, queue, input, slot)
           SELECT name || s || n, %s, s, name || chr(31) || 'p' || n %% %s, '{}', CASE s WHEN 'running' THEN name END
           FROM generate_series(1, 5 * %s) n, unnest(ARRAY['queued', 'running']) s,
                unnest(ARRAY['parts', 'full parts', 'rated parts']) name
           WHERE s = 'queued' OR name = 'full parts' AND n <= 2 * %s""",
        *(NAME, PARTITIONS, PARTITIONS, PARTITIONS),
    )
    await db.rows(
        """INSERT INTO dbosflow.queue (name, concurrency, worker_concurrency, partition_concurrency, settled)
           VALUES ('limited', 100, 50, NULL, true), ('parts', NULL, NULL, 2, true),
                  ('full parts', NULL, NULL, 2, true), ('rated parts', NULL, NULL, NULL, true)"""
    )
    await db.rows(
        """UPDATE dbosflow.queue SET partition_rate_count = 1, partition_rate_period = 60, partition_rate_burst = 5
           WHERE name = 'rated parts'"""
    )
    await db.rows(
        """INSERT INTO dbosflow.partition_rate (queue, key, next_at, moved_at)
           SELECT name, 'p' || n, now() + interval '1 hour', now()
           FROM generate_series(0, %s) n, unnest(ARRAY['parts', 'rated parts']) name
           WHERE name = 'parts' OR n >= %s / 2""",
        *(CROWD, PARTITIONS),
    )
    await db.rows(
        """INSERT INTO dbosflow.worker (id, state, lease, host, pid, version, ended_at)
           SELECT gen_random_uuid(), 'dead', 10, 'gone', n, '0', now() FROM generate_series(1, %s) n""",
        DEAD,
    )


async def suspended(db: Database) -> None:
    """A crowd of workflows that wait, most of them for a time that has not come."""
    await db.rows(
        """INSERT INTO dbosflow.workflow (id, name, status, input, epoch, wake_at)
           SELECT 's' || n, %s, 'waiting', '{}', 1, now() + (n - 3) * interval '1 hour'
           FROM generate_series(1, %s / 4) n""",
        *(NAME, CROWD),
    )
    await db.rows(
        """INSERT INTO dbosflow.waiter (workflow_id, topic, target_id, "offset", committed)
           SELECT 's' || n, 't' || n / 5, 'w', 0, false FROM generate_series(1, %s / 4) n""",
        CROWD,
    )


class Planned:
    """A session in which these cases are prepared."""

    def __init__(self, connection: AsyncConnection[Any], cases: tuple[Case, ...], worker_id: UUID) -> None:
        self._connection = connection
        self._cases = cases
        self._worker_id = worker_id
        self._parameters: list[list[str]] = []

    async def prepare(self) -> None:
        """Prepares them all."""
        for number, case in enumerate(self._cases):
            self._parameters.append(await prepare(self._connection, str(number), case.text()))

    async def run(self, more: int = 0) -> list[str]:
        """Runs them all, each rolled back; what is to be said against their plans.

        ``more`` are the rows in each table that the cases do not know of.
        """
        complaints = []
        for number, case in enumerate(self._cases):
            values = [self._value(case.values[name]) for name in self._parameters[number]]
            turn = case.values["name"] if case.statement == "queue.claim" else None
            plan = await explain(self._connection, str(number), values, claims_of=turn)
            complaints.append(case.complaint(plan, more))
        return [complaint for complaint in complaints if complaint]

    def _value(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._value(one) for one in value]
        return self._worker_id if value is WORKER else value


async def planned(db: Database, worker_id: UUID, mode: str, special: Mapping[str, str], *cases: Case) -> Planned:
    """A session with that mode of planning and what is special to it, in which the cases are prepared."""
    connection = await db.connect({"plan_cache_mode": mode}, special)
    found = Planned(connection, cases, worker_id)
    await found.prepare()
    return found
