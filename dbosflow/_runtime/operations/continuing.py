"""The end of an iteration, as the body asks for it. What follows is in ``execution/continuing``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from dbosflow._runtime.execution.continuing import ContinuedAsNew, check_nothing_to_undo
from dbosflow.errors import ContinueAsNewError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dbosflow._runtime.execution.run import Run, RunBranch


def continue_run(branch: RunBranch, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> NoReturn:
    """Leaves the body of the branch's workflow, which is to be continued as new."""
    run = branch.run
    run.check_may_begin()
    branch.check_owner("continue_as_new(...)")
    _check_alone(run, branch)
    check_nothing_to_undo(run)
    text = run.definition.dump_next_arguments(args, kwargs, run.arguments_text)
    raise ContinuedAsNew(args, kwargs, text)


def _check_alone(run: Run, branch: RunBranch) -> None:
    """Raises if another task of the workflow is under way, or the caller is one."""
    if not run.definition.is_async:
        return
    others = [one for one in run.coroutines if one is not branch.owner]
    if others:
        paths = ", ".join(sorted(repr(one.branch.path) for one in others))
        msg = (
            f"workflow {run.workflow_id!r} cannot continue as new in {branch.path!r} while other tasks of it are under "
            f"way ({paths}): wait for them or cancel them first, and call it in the workflow's own body"
        )
        raise ContinueAsNewError(run.workflow_id, msg)
