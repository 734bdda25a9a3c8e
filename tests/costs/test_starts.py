"""What the options of starts cost: nothing where a start has none."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import workflow
from dbosflow._runtime.execution import openings
from dbosflow._store.batch_rows import parameters
from dbosflow._store.start_options import StartOptions

if TYPE_CHECKING:
    from dbosflow.workflows import Workflow
    from tests.costs.conftest import OpenEngine
    from tests.costs.wire import Wire

OPTIONS = StartOptions(timeout=3600.0)


@workflow
async def costs_started() -> None:
    """Ends at once."""


@workflow
def costs_started_on_thread() -> None:
    """The same."""


def test_the_statement_has_the_parameters_of_options_only_with_options() -> None:
    """Those of a start without any are the ones that each start needs."""
    names = "workflow_id name queue priority input parent_id parent_key input_streams owned"
    plain = tuple(f"start_{name}" for name in names.split())
    assert parameters(("starts",)) == plain
    assert parameters(("starts", "outcomes")) == (*plain, "outcome_status", "outcome_output", "outcome_error")
    assert parameters(("starts", "options")) == plain + tuple(f"option_{name}" for name in StartOptions._fields)


@pytest.mark.parametrize("options", [None, OPTIONS])
async def test_options_travel_only_with_a_start_that_has_some(
    open_engine: OpenEngine, line: Wire, options: StartOptions | None
) -> None:
    """Here, enqueued, and both times in a statement of its own shape."""
    spec = replace(costs_started.spec, optional=options)
    async with open_engine() as engine, open_engine(executes=False) as client:
        with line.counted() as counts:
            await engine.run_async(spec)
            await client.start_async(spec)
    suffixes = ("_outcomes", "") if options is None else ("_options", " with options")
    form = "lone" if options is None else "one"  # attributes are written by a part of their own
    starts = {name: count for name, count in counts.executed.items() if "starts" in name or "enqueue" in name}
    assert starts == {f"batch {form}_starts{suffixes[0]}": 1, f"workflow.enqueue{suffixes[1]}": 1}


@pytest.mark.parametrize("flow", [costs_started, costs_started_on_thread])
async def test_a_workflow_that_waits_for_nothing_is_one_statement(
    open_engine: OpenEngine, line: Wire, flow: Workflow[[], Any, None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a thread if it ends in time, which is not the question here."""
    monkeypatch.setattr(openings, "_LONGEST_ON_THREAD", 3600.0)
    async with open_engine() as engine:
        with line.counted() as counts:
            await engine.run_async(flow)
    batches = {name: count for name, count in counts.executed.items() if name.startswith("batch ")}
    assert batches == {"batch lone_starts_outcomes": 1}
