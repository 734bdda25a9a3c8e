"""``engine.workflows`` as a view: pages by a filter, numbers, records and their steps."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import WorkflowFilter, step, workflow
from dbosflow.errors import ConfigurationError, InWorkflowError, WorkflowNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dbosflow import Engine
    from dbosflow.types import Page

    Execute = Callable[..., list[Any]]

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def ids(found: Iterable[Any]) -> list[str]:
    return [info.id for info in found]


@pytest.fixture
def listed(client: Engine, execute: Execute) -> Engine:
    """Workflows ``a-0``, ``b-1``, ``a-2`` ..., one a minute since noon; the next six are the children of the first."""
    execute(
        """INSERT INTO dbosflow.workflow (id, name, status, queue, input, created_at, started_at, ended_at, parent_id,
                                         forked_from)
           SELECT CASE n % 2 WHEN 0 THEN 'a-' ELSE 'b-' END || n, 'name ' || n % 3,
                  (ARRAY['queued', 'failed', 'succeeded', 'blocked'])[n % 4 + 1], CASE WHEN n < 10 THEN 'q' ELSE '' END,
                  '{}', at, at + interval '10 seconds', at + interval '20 seconds',
                  CASE WHEN n BETWEEN 1 AND 6 THEN 'a-0' END, CASE WHEN n > 17 THEN 'a-0' END
           FROM generate_series(0, 19) n
           CROSS JOIN LATERAL (SELECT timestamptz '2026-01-01 12:00Z' + n * interval '1 minute' AS at) AS t"""
    )
    execute(
        """INSERT INTO dbosflow.attribute (workflow_id, name, value)
           VALUES ('a-4', 'customer', '"acme"'), ('b-5', 'customer', '"acme"'), ('b-5', 'paid', 'true'),
                  ('b-5', 'tries', '3'), ('a-6', 'customer', '"other"')"""
    )
    return client


@pytest.mark.parametrize(
    ("criteria", "numbers"),
    [
        ({}, range(20)),
        ({"status": "failed"}, range(1, 20, 4)),
        ({"status": ["failed", "blocked"]}, range(1, 20, 2)),
        ({"status": ["failed", "failed", "blocked"]}, range(1, 20, 2)),
        ({"status": ["queued", "succeeded"]}, range(0, 20, 2)),
        ({"status": ("queued", "running")}, range(0, 20, 4)),
        ({"name": "name 1"}, range(1, 20, 3)),
        ({"name": ["name 0", "name 1"], "status": "queued"}, [0, 4, 12, 16]),
        ({"queue": "q"}, range(10)),
        ({"queue": ["", "q"], "limit": 3}, [17, 18, 19]),
        ({"queue": "", "limit": 0}, []),
        ({"id_prefix": "a-1"}, [10, 12, 14, 16, 18]),
        ({"id_prefix": "%"}, []),
        ({"created_after": NOON + 5 * MINUTE, "created_before": NOON + 7 * MINUTE}, [5, 6]),
        ({"started_after": NOON + 5 * MINUTE, "started_before": NOON + 7 * MINUTE}, [5, 6]),
        ({"ended_before": NOON + 2 * MINUTE, "status": ["failed", "queued"]}, [0, 1]),
        ({"ended_after": NOON + 18 * MINUTE}, [18, 19]),
        ({"parent_id": "a-0"}, range(1, 7)),
        ({"parent_id": "a-0", "status": "failed"}, [1, 5]),
        ({"attributes": {"customer": "acme"}}, [4, 5]),
        ({"forked_from": "a-0"}, [18, 19]),
        ({"forked_from": "a-0", "status": "queued"}, []),
        ({"attributes": {"customer": "acme", "paid": True, "tries": 3}}, [5]),
        ({"attributes": {"tries": "3"}}, []),
        ({"attributes": {"customer": "acme"}, "parent_id": "a-0", "queue": "q", "status": "queued"}, [4]),
    ],
    ids=str,
)
def test_pages_hold_what_the_filter_selects(listed: Engine, criteria: dict[str, Any], numbers: Iterable[int]) -> None:
    """The newest first, whatever the size of a page; and all ways to ask agree."""
    which = WorkflowFilter(**criteria)
    expected = [f"{'ab'[number % 2]}-{number}" for number in sorted(numbers, reverse=True)]
    assert ids(listed.list_workflows(which)) == expected
    assert ids(listed.workflows.list(which).items) == expected
    assert listed.workflows.list(which, page_size=len(expected) or 1).next is None
    for size in (1, 3):
        assert ids(listed.workflows.iterate(which, page_size=size)) == expected

    async def twins() -> tuple[list[str], int]:
        found = [info.id async for info in listed.workflows.iterate_async(which, page_size=2)]
        return found, await listed.workflows.count_async(which)

    assert asyncio.run(twins())[0] == expected
    if which.limit is None:
        assert asyncio.run(twins())[1] == listed.workflows.count(which) == len(expected)


def test_a_page_goes_on_where_the_one_before_has_ended(listed: Engine, execute: Execute) -> None:
    """Though newer workflows came, the last of it was removed, and many are of one instant."""
    execute("UPDATE dbosflow.workflow SET created_at = '2026-01-01 12:30Z' WHERE name = 'name 1'")
    before = ids(listed.workflows.iterate())
    pages: list[Page[Any]] = [listed.workflows.list(page_size=4)]
    while pages[-1].next is not None:
        execute(
            "INSERT INTO dbosflow.workflow (id, name, status, input) VALUES (gen_random_uuid(), 'x', 'queued', '{}')"
        )
        execute(f"DELETE FROM dbosflow.workflow WHERE id = '{pages[-1].items[-1].id}'")
        pages.append(listed.workflows.list(cursor=pages[-1].next, page_size=4))
    assert [one for page in pages for one in ids(page.items)] == before
    assert [len(page.items) for page in pages] == [4] * 5


def test_pinned_workflows_are_found_by_their_version(client: Engine) -> None:
    for version in ("v1", "v10", None):
        client.start(of_many_steps.options(workflow_id=str(version), queue="q", pin_version=version))
    assert ids(client.workflows.list(WorkflowFilter(version="v1")).items) == ["v1"]
    assert ids(client.workflows.list(WorkflowFilter(version="v1", queue="q", status="queued")).items) == ["v1"]
    assert client.workflows.count(WorkflowFilter(version="v2")) == 0
    assert client.workflows.count(WorkflowFilter(queue="q")) == 3


def test_a_limit_holds_over_all_pages(listed: Engine) -> None:
    which = WorkflowFilter(limit=5)
    first = listed.workflows.list(which, page_size=2)
    second = listed.workflows.list(which, page_size=2, cursor=first.next)
    last = listed.workflows.list(which, page_size=2, cursor=second.next)
    assert [len(page.items) for page in (first, second, last)] == [2, 2, 1]
    assert last.next is None


def test_workflows_are_counted_by_a_column(listed: Engine) -> None:
    counted = listed.workflows.count(by="status")
    assert counted == {"queued": 5, "failed": 5, "succeeded": 5, "blocked": 5}
    assert listed.workflows.count(WorkflowFilter(status="failed"), by="queue") == {"q": 3, "": 2}
    assert list(listed.workflows.count(by="name").values()) == [7, 7, 6]
    assert listed.workflows.count(WorkflowFilter(name="none")) == 0


def test_a_record_has_its_attributes(listed: Engine) -> None:
    assert listed.workflows.get("b-5").attributes == {"customer": "acme", "paid": True, "tries": 3}
    assert listed.workflows.get("a-0").attributes == {}
    with pytest.raises(WorkflowNotFoundError):
        listed.workflows.get("nobody")


@pytest.mark.parametrize(
    "criteria",
    [
        {"status": []},
        {"status": ["failed", "done"]},
        {"name": [1]},
        {"created_after": datetime(2026, 1, 1)},  # noqa: DTZ001 (what is refused)
        {"ended_before": "2026-01-01"},
        {"id_prefix": ""},
        {"attributes": {"price": 1.5}},
        {"attributes": {"": 1}},
        {"attributes": ["customer"]},
        {"limit": -1},
    ],
    ids=str,
)
def test_criteria_that_make_no_sense_are_refused(criteria: dict[str, Any]) -> None:
    """And named: the message says which one, and what it may be."""
    with pytest.raises(ConfigurationError, match=next(iter(criteria))[:4]):
        WorkflowFilter(**criteria)


def test_what_is_no_page_is_refused(listed: Engine) -> None:
    steps = listed.workflows.list(page_size=1).next
    for wrong in ("", "abc", steps and steps[:-4], "W10=", 3):
        with pytest.raises(ConfigurationError, match="cursor"):
            listed.workflows.list(cursor=wrong)  # type: ignore[arg-type]  # what is refused
    with pytest.raises(ConfigurationError, match="cursor"):
        listed.workflows.steps("a-0", cursor=steps)
    for size in (0, 10_001, "1"):
        with pytest.raises(ConfigurationError, match="page_size"):
            listed.workflows.list(page_size=size)  # type: ignore[arg-type]  # what is refused
    with pytest.raises(ConfigurationError, match="by="):
        listed.workflows.count(by="input")  # type: ignore[call-overload]  # what is refused
    with pytest.raises(ConfigurationError, match="WorkflowFilter"):
        listed.workflows.list("failed")  # type: ignore[arg-type]  # what is refused


tries: list[int] = []


@step(max_attempts=3, interval=0)
def third_time_lucky(number: int) -> int:
    tries.append(number)
    if tries.count(number) < 3:
        raise ValueError("not yet")
    return number


@workflow
def of_many_steps() -> None:
    for number in range(4):
        third_time_lucky(number)


def test_pages_of_steps_say_the_same_as_all_of_them(engine: Engine) -> None:
    """Also where the attempts of a step are on several pages."""
    tries.clear()
    engine.run(of_many_steps.options(workflow_id="w"))
    everything = engine.list_steps("w")
    assert len(everything) == 12
    assert [(one.number, one.attempts) for one in everything] == [(1, 3), (2, 3), (3, 3)] * 4
    for size in (1, 5, 12):
        found: list[Any] = []
        cursor: str | None = None
        while True:
            page = engine.workflows.steps("w", page_size=size, cursor=cursor)
            found += page.items
            cursor = page.next
            if cursor is None:
                break
        assert found == everything
    bare = engine.workflows.steps("w", outputs=False).items
    assert [one.output for one in bare] == [None] * 12
    assert [one.key for one in bare] == [one.key for one in everything]
    with pytest.raises(WorkflowNotFoundError):
        engine.workflows.steps("nobody")


looked: list[Engine] = []


@workflow
def looks_at_others() -> None:
    looked[0].workflows.list()


def test_a_body_does_not_look_at_what_changes(engine: Engine) -> None:
    looked[:] = [engine]
    with pytest.raises(InWorkflowError):
        engine.run(looks_at_others)
