"""What code can know of where it runs: ``current``, and a logger that says it too."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbosflow._runtime.execution.run import StepAttempt
from dbosflow._runtime.execution.scope import current_scope
from dbosflow._runtime.operations import patches
from dbosflow._runtime.replay.branch import Branch, named_region
from dbosflow._runtime.runs.keys import path_of
from dbosflow.config import check_identifier
from dbosflow.errors import NotInWorkflowError

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping


@dataclass(frozen=True, slots=True)
class Current:
    """Where the running code stands. In a workflow's body ``step_key`` and ``attempt`` are ``None``."""

    workflow_id: str
    step_key: str | None = None
    attempt: str | None = None
    branch: str = ""
    """The branch of the workflow, by its path as it stands in the keys of its records; empty for the workflow's own."""

    @property
    def idempotency_key(self) -> str:
        """For outside services: the same in every attempt of a step, and in no other step of any workflow."""
        return self.workflow_id if self.step_key is None else f"{self.workflow_id}/{self.step_key}"


def current() -> Current:
    """The workflow, step and attempt that the calling code belongs to.

    Raises:
        NotInWorkflowError: it belongs to none.
    """
    here = _current()
    if here is None:
        msg = "current() needs a workflow or step around it"
        raise NotInWorkflowError(msg)
    return here


@contextmanager
def branch(name: str) -> Iterator[None]:
    """Names what the calling task does durably in the block, and the tasks that it makes there.

    The records of the block stand under ``name``, whoever made the task and whatever it is called: for libraries that
    start tasks without naming them, where an upgrade would name them, and so the records, otherwise:

    ```python
    async def charge(call_id: str, amount: int) -> str:  # run by an agent's framework, several at a time
        with branch(f"charge:{call_id}"):
            return await payments.charge(amount)
    ```

    The name has to be one that a replay gives again: an id that is on record, say, and no counter of the process. In a
    step, and outside of workflows, it changes nothing.

    Raises:
        BranchError: the name was entered before in this workflow, or the caller is none of its branches.
        ConfigurationError: it is no text of 1 to 512 characters.
    """
    check_identifier("branch name", name)
    scope = current_scope()
    if not isinstance(scope, Branch):
        yield
        return
    with named_region(scope, name):
        yield


def patched(name: str) -> bool:
    """Whether the calling code is to take its new path, where the code of workflows under way was changed.

    False as long as the records of the run are those of the old code: it takes the path that it took, and the new one
    from the first call on that stands behind them. What was taken stays so in every replay. Each branch, and each
    call in a loop, is asked for itself. Costs a row where it is true, and no wait.

    Once no workflow of the old code is left, the call and the old path can be removed: the record contradicts nothing.
    In a step, and outside of workflows, it is true.

    Raises:
        BranchError: the caller is no branch of its workflow.
        ConfigurationError: the name is no text of 1 to 512 characters.
    """
    check_identifier("patch name", name)
    scope = current_scope()
    return patches.patched(scope, name) if isinstance(scope, Branch) else True


class WorkflowLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger for workflows and steps: its records carry the ids, and a replay does not repeat them.

    Each record has the attributes ``workflow_id``, ``step_key`` and ``attempt``; ``None`` outside of workflows.
    What a workflow's body logs while it is handed recorded outcomes again was logged by the run that made them.
    """

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 (logging's own name)
        """Whether a record of this level is to be made here and now."""
        scope = current_scope()
        replaying = isinstance(scope, Branch) and scope.run.is_replaying
        return not replaying and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Adds the ids."""
        here = _current()
        ids = {
            "workflow_id": here and here.workflow_id,
            "step_key": here and here.step_key,
            "attempt": here and here.attempt,
        }
        return msg, {**kwargs, "extra": {**ids, **(kwargs.get("extra") or {})}}


def get_logger(name: str) -> WorkflowLogger:
    """The logger of that name, for use in workflows and steps."""
    return WorkflowLogger(logging.getLogger(name))


def _current() -> Current | None:
    scope = current_scope()
    if isinstance(scope, Branch):
        return Current(scope.run.workflow_id, branch=scope.path)
    if isinstance(scope, StepAttempt):
        return Current(scope.run.workflow_id, scope.key, scope.name, path_of(scope.key))
    return None
