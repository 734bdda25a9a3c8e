"""What a claim reads while very much waits that it cannot take: a few pages, in every queue and whatever the plan.

The plans are made while the tables are empty, as a new engine makes them; or behind a pooler, anew each time, by what
is known of tables that were empty, or are as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow._sessions import WORKER as WORKERS_SESSION
from dbosflow._store import statements
from tests.protocol.plan_cases import PARTITIONS_OF_A_LOOK, claimed_from
from tests.protocol.plans import explain, prepare
from tests.protocol.schedules import NAME, SCHEMA

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg import AsyncConnection

    from tests.protocol.plans import Plan
    from tests.protocol.schedules import Database, WorkerLease

MUCH = 100_000
"""Workflows that wait, and that the worker cannot take."""
PAGES = 60
"""That a claim of one workflow may look at to find it: a few probes of an index."""
MANY_NAMES = [NAME, *(f"known{number:03}" for number in range(199))]
SESSIONS: Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]] = {
    "worker": ({"plan_cache_mode": "force_generic_plan"}, WORKERS_SESSION),
    "pooled": ({"plan_cache_mode": "force_custom_plan"}, {}),
    "analyzed": ({"plan_cache_mode": "force_custom_plan"}, {}),
}


@dataclass
class Claims:
    """The claims of a worker, as they are planned once."""

    lease: WorkerLease
    connection: AsyncConnection[Any]
    parameters: dict[str, list[str]]
    analyzes: bool

    async def explain(self, statement: str, **values: Any) -> Plan:
        """What one of them does with these values."""
        turn = values["name"] if statement == "claim_limited" else None
        if self.analyzes:
            await self.connection.execute("ANALYZE dbosflow.workflow")
        given = [values.get(name, self.lease.id) for name in self.parameters[statement]]
        return await explain(self.connection, statement, given, claims_of=turn)


@pytest.fixture(params=SESSIONS)
async def claims(db: Database, request: pytest.FixtureRequest) -> Claims:
    """Of a session of its own, with empty tables."""
    special, session = SESSIONS[request.param]
    lease, connection = await db.lease(), await db.connect(special, session)
    texts = {
        "claim": statements.load("claim", SCHEMA)["claim"],
        "lock": statements.load("queue", SCHEMA)["lock"],
        "claim_limited": statements.load("queue", SCHEMA)["claim"],
    }
    parameters = {name: await prepare(connection, name, text) for name, text in texts.items()}
    found = Claims(lease, connection, parameters, analyzes=request.param == "analyzed")
    for statement in texts:
        await found.explain(statement, **unlimited(), **limited())
    return found


def unlimited(*names: str, queue: str = "q", limit: int = 1) -> dict[str, Any]:
    """The parameters of a claim from a queue without limits."""
    return {"queue": queue, "limits": queue, "names": [*names] or [NAME], "limit": limit, "suspects": True}


def limited(*names: str, queue: str = "limited", hinted: Sequence[str] = ()) -> dict[str, Any]:
    """Those of a look at a queue with limits, and of a claim, that ``unlimited`` has not."""
    found = claimed_from(queue, *hinted)
    return {name: found[name] for name in ("name", "after_lap", "after_key", "until_key", "hinted")}


async def waiting(
    db: Database, name: str, count: int = MUCH, *, queue: str = "q", partitions: int = 0, recoveries: int = 0
) -> None:
    """So many workflows, ``#`` in whose name stands for a digit, in the order in which they were made."""
    await db.rows(
        """INSERT INTO dbosflow.workflow (id, name, status, queue, input, recoveries, created_at)
           SELECT concat_ws(' ', of.queue, of.name, of.recoveries, n), replace(of.name, '#', (n %% 10)::text), 'queued',
                  of.queue || CASE WHEN of.partitions > 0 THEN chr(31) || n %% of.partitions ELSE '' END, '{}',
                  of.recoveries, clock_timestamp()
           FROM (SELECT %s AS name, %s AS queue, %s AS partitions, %s AS recoveries) AS of,
                generate_series(1, %s) AS n""",
        *(name, queue, partitions, recoveries, count),
    )


async def limit(db: Database, queue: str, **limits: int) -> None:
    """Makes a queue one with limits."""
    await db.rows(
        "INSERT INTO dbosflow.queue (name, concurrency, partition_concurrency, settled) VALUES (%s, %s, %s, true)",
        *(queue, limits.get("concurrency"), limits.get("partition_concurrency")),
    )


def taken(plan: Plan) -> int:
    """How many workflows a claim took."""
    return int(plan.nodes[0]["Actual Rows"])


@pytest.mark.parametrize("names", [[NAME], MANY_NAMES], ids=["one", "many"])
async def test_names_that_a_worker_does_not_know_cost_it_nothing(
    db: Database, claims: Claims, names: list[str]
) -> None:
    """Whatever is before what it knows, and however many names it knows."""
    for name, recoveries in (("a#", 0), ("z#", 0), ("a suspect", 3)):
        await waiting(db, name, MUCH // 2, recoveries=recoveries)
    plan = await claims.explain("claim", **unlimited(*names))
    assert taken(plan) == 0
    assert plan.pages_of("workflow") <= PAGES
    await waiting(db, NAME, 20)
    plan = await claims.explain("claim", **unlimited(*names))
    assert taken(plan) == 1
    assert plan.pages_of("workflow") <= PAGES
    await waiting(db, "known000", 20)
    plan = await claims.explain("claim", **unlimited(*names))
    assert taken(plan) == 1
    assert plan.pages_of("workflow") <= PAGES
    await waiting(db, NAME, 1, recoveries=3)
    plan = await claims.explain("claim", **unlimited(*names))
    assert taken(plan) == 1
    assert plan.pages_of("workflow") <= PAGES


@pytest.mark.parametrize("names", [[NAME], MANY_NAMES], ids=["one", "many"])
@pytest.mark.parametrize("queue", ["q", "q\x1fp"], ids=["queue", "partition"])
async def test_the_same_holds_in_a_queue_with_limits(
    db: Database, claims: Claims, names: list[str], queue: str
) -> None:
    """For the look before it, too, and for what hints name."""
    await limit(db, "q", concurrency=10, partition_concurrency=10)
    values = limited(queue="q", hinted=["p", "none"]) | unlimited(*names)
    for name, recoveries in (("a#", 0), ("z#", 0), ("a suspect", 3)):
        await waiting(db, name, MUCH // 2, queue=queue, recoveries=recoveries)
    for statement, found in (("lock", 1), ("claim_limited", 0)):
        plan = await claims.explain(statement, **values)
        assert taken(plan) == found
        assert plan.pages_of("workflow") <= PAGES
    await waiting(db, NAME, 20, queue=queue)
    for statement in ("lock", "claim_limited"):
        plan = await claims.explain(statement, **values)
        assert taken(plan) == 1
        assert plan.pages_of("workflow") <= PAGES


@pytest.mark.parametrize("names", [[NAME], MANY_NAMES], ids=["one", "many"])
async def test_a_claim_of_a_queue_with_many_partitions_looks_at_a_few(
    db: Database, claims: Claims, names: list[str]
) -> None:
    """At 64 of 10,000, as long as it finds nothing; each costs a few probes, whatever waits there."""
    await limit(db, "q", partition_concurrency=10)
    values = limited(queue="q") | unlimited(*names)
    await waiting(db, "a#", queue="q", partitions=10_000)
    for statement, found in (("lock", 1), ("claim_limited", 0)):
        plan = await claims.explain(statement, **values)
        assert taken(plan) == found
        assert plan.pages_of("workflow") <= 15 * PARTITIONS_OF_A_LOOK
    await waiting(db, NAME, queue="q", partitions=10_000)
    for statement in ("lock", "claim_limited"):
        plan = await claims.explain(statement, **values)
        assert taken(plan) == 1
        assert plan.pages_of("workflow") <= PAGES
