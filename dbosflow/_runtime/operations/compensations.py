"""Compensations: steps that undo others, registered by a body, and carried out if its workflow does not succeed.

To register is no operation, and on no record: a replay registers the same ones. See ``runs/compensations``.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from dbosflow._runtime.execution.scope import set_scope
from dbosflow._runtime.operations.steps import run_step
from dbosflow._runtime.process.exits import is_signal
from dbosflow._runtime.runs.compensations import Compensation
from dbosflow._runtime.runs.state import RunStopped
from dbosflow.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dbosflow._runtime.execution.run import RunBranch
    from dbosflow.definitions import StepDef


def register(branch: RunBranch, step: StepDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Registers a compensation of the branch's workflow, also if that is to end: what was done is to be undone."""
    run = branch.run
    branch.check_owner(f"compensate({step.name!r})")
    compensations = run.compensations
    if compensations is None:
        msg = (
            f"{run.definition} registers a compensation, and does not say that it compensates: write "
            "@workflow(compensates=True). So a worker that takes it over knows that there is something to undo"
        )
        raise DefinitionError(msg)
    if run.stopping is not None:
        raise run.stopping
    if run.ending or run.compensating:
        raise RunStopped(f"the body of workflow {run.workflow_id!r} is over")
    compensations.register(Compensation(step, args, kwargs), _carry_out)


async def _carry_out(branch: RunBranch) -> None:
    """Carries out all that is registered, the last one first. What fails is noted, and the others follow."""
    set_scope(branch)
    compensations = branch.run.compensations
    assert compensations is not None
    while compensations.left:
        step, args, kwargs = compensations.left[-1]
        try:
            await run_step(step, args, kwargs)
        except (RunStopped, asyncio.CancelledError):
            raise
        except BaseException as error:
            if is_signal(error):
                raise
            if branch.run.stopping is not None:  # code and records disagree
                raise branch.run.stopping from error
            compensations.notes.append(f"compensation {step.name!r} failed: {type(error).__name__}: {error}")
        compensations.left.pop()
