"""The context of running code: ``current``, branches, patches, and a logger that adds the context to its records."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbosflow._records.keys import path_of
from dbosflow._runtime.execution.drivers import drive
from dbosflow._runtime.execution.run import StepAttempt
from dbosflow._runtime.execution.scope import current_scope
from dbosflow._runtime.operations import patches, using
from dbosflow._runtime.operations.attributes import update_attributes
from dbosflow._runtime.process.host import refuse_on_loop
from dbosflow._runtime.replay.branch import Branch, named_region
from dbosflow.attributes import checked_changes
from dbosflow.config import LARGEST_INTEGER, check_identifier, check_whole
from dbosflow.errors import InWorkflowError, NotInWorkflowError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, MutableMapping

    from dbosflow._runtime.execution.run import RunBranch
    from dbosflow.attributes import Attribute


@dataclass(frozen=True, slots=True)
class Current:
    """The workflow, step and attempt of the running code. In a workflow's body the last two are ``None``."""

    workflow_id: str
    """With ``engine.run`` and no id given, others find it from the first operation of its body on, or some milliseconds
    after a sync body has begun. So they do with an async child that its parent waits for.
    """
    step_key: str | None = None
    attempt: str | None = None
    branch: str = ""
    """The branch of the workflow, by its path in the keys of its records; empty for the workflow's own."""

    @property
    def idempotency_key(self) -> str:
        """A key for calls to outside services: the same in every attempt of a step, another one in any other step."""
        return self.workflow_id if self.step_key is None else f"{self.workflow_id}/{self.step_key}"

    def update_attributes(self, attributes: Mapping[str, Attribute | None]) -> None:
        """In a sync workflow's body: sets attributes of it. See ``update_attributes_async``, its awaitable twin."""
        refuse_on_loop("await current().update_attributes_async(...)")
        drive(update_attributes(self._branch(), checked_changes(attributes)))

    async def update_attributes_async(self, attributes: Mapping[str, Attribute | None]) -> None:
        """In a workflow's body: sets attributes of it, by which it can be searched.

        The change is made once, and is durable on return: it is one statement with the record that says so, and a
        replay does not repeat it, whoever has changed the attributes since. Others stay as they are. A fork has the
        attributes that its original has when it is forked.

        Args:
            attributes: texts, whole numbers or booleans by name, up to 32 at a time; ``None`` removes one.

        Raises:
            InWorkflowError: the caller is a step, whose attempts may be repeated: use
                ``engine.workflows.update_attributes`` there.
            BranchError: the caller is no branch of its workflow.
            ConfigurationError: a name or a value is not valid.
        """
        await update_attributes(self._branch(), checked_changes(attributes))

    def use(self, units: int) -> None:
        """In a sync workflow or step: says how many units were really used. See ``use_async``, its awaitable twin."""
        refuse_on_loop("await current().use_async(...)")
        scope = self._scope(check_whole("units", units, 0, LARGEST_INTEGER))
        if isinstance(scope, StepAttempt):
            drive(using.use_in_step(scope, scope.run.thread_driver, units))
        else:
            drive(using.use(scope, units))

    async def use_async(self, units: int) -> None:
        """In a workflow or step: says how many units were really used, and corrects the rate of its queue by that.

        The first call of a workflow gives back what its start has taken (``options(units=...)``), and each takes what
        it says: so in the end the rate has what all of them have said. On return that is durable. What a rate has not
        is owed: nothing begins until then. A body's call counts once, however often it is replayed, and is on record.
        A step's call counts in each attempt, for each has really used something. Where a worker dies in a call, it may
        have counted, and then does not again in a body. Where the queue has no rate, and without a queue, nothing
        happens.

        Args:
            units: how many more were used, since the last call: 0 or more.

        Raises:
            InWorkflowError: this is not the workflow or step of the calling code.
            BranchError: the caller is no branch of its workflow.
            ConfigurationError: the number is not valid.
        """
        scope = self._scope(check_whole("units", units, 0, LARGEST_INTEGER))
        if isinstance(scope, StepAttempt):
            await using.use_in_step(scope, scope.run.loop_driver, units)
        else:
            await using.use(scope, units)

    def _scope(self, _units: int) -> RunBranch | StepAttempt:
        scope = current_scope()
        if isinstance(scope, Branch | StepAttempt) and scope.run.workflow_id == self.workflow_id:
            return scope
        msg = f"current() was called in workflow {self.workflow_id!r}, and its use(...) elsewhere: call current() here"
        raise InWorkflowError(msg)

    def _branch(self) -> RunBranch:
        scope = current_scope()
        if isinstance(scope, Branch) and scope.run.workflow_id == self.workflow_id:
            return scope
        msg = (
            f"current().update_attributes(...) is for the body of workflow {self.workflow_id!r}; anywhere else, and in "
            "a step, use engine.workflows.update_attributes(...)"
        )
        raise InWorkflowError(msg)


def current() -> Current:
    """The workflow, step and attempt that the calling code belongs to.

    Raises:
        NotInWorkflowError: the calling code belongs to no workflow.
    """
    here = _current()
    if here is None:
        msg = "current() needs a workflow or step around it"
        raise NotInWorkflowError(msg)
    return here


@contextmanager
def branch(name: str) -> Iterator[None]:
    """Names the branch of the durable work in a block: that of the calling task, and of the tasks made in the block.

    The records of the block are kept under ``name``, whatever code made the tasks and however they are called. Use it
    with libraries that start tasks without names: an upgrade of the library could otherwise rename the tasks, and so
    the records.

    ```python
    async def charge(call_id: str, amount: int) -> str:  # run by an agent's framework, several at a time
        with branch(f"charge:{call_id}"):
            return await payments.charge(amount)
    ```

    A replay must give the same name: use an id that is on record, and no counter of the process. In a step, and outside
    of workflows, a branch changes nothing.

    Args:
        name: a text of 1 to 512 bytes in UTF-8, unique among the branches of the workflow.

    Raises:
        BranchError: the name was entered before in this workflow, or the caller is no branch of its workflow.
        ConfigurationError: the name is not valid.
    """
    check_identifier("branch name", name)
    scope = current_scope()
    if not isinstance(scope, Branch):
        yield
        return
    with named_region(scope, name):
        yield


def patched(name: str) -> bool:
    """Whether the calling code takes its new path, where the code of running workflows was changed.

    The answer is false as long as the run replays records of the old code, which then takes its old path. It is true
    from the first call on that comes after those records. A path that was taken is taken in every later replay. Each
    branch, and each call in a loop, has its own answer. A true answer costs a row, and no wait.

    Once no workflow of the old code is left, the call and the old path can be removed; the remaining records are
    accepted. In a step, and outside of workflows, the answer is true.

    Args:
        name: the name of the change: a text of 1 to 512 bytes in UTF-8.

    Raises:
        BranchError: the caller is no branch of its workflow.
        ConfigurationError: the name is not valid.
    """
    check_identifier("patch name", name)
    scope = current_scope()
    return patches.patched(scope, name) if isinstance(scope, Branch) else True


class WorkflowLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger for workflows and steps. Its records carry the ids, and a replay does not repeat them.

    Each record has the attributes ``workflow_id``, ``step_key`` and ``attempt``, which are ``None`` outside of
    workflows. While a workflow's body replays recorded outcomes, its log records are dropped: the run that recorded
    the outcomes has logged them.
    """

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 (logging's own name)
        """Whether a record of this level is to be logged here and now."""
        scope = current_scope()
        replaying = isinstance(scope, Branch) and scope.run.is_replaying
        return not replaying and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Adds the ids to the record."""
        here = _current()
        ids = {
            "workflow_id": here and here.workflow_id,
            "step_key": here and here.step_key,
            "attempt": here and here.attempt,
        }
        return msg, {**kwargs, "extra": {**ids, **(kwargs.get("extra") or {})}}


def get_logger(name: str) -> WorkflowLogger:
    """The logger of the given name, for use in workflows and steps. See ``WorkflowLogger``."""
    return WorkflowLogger(logging.getLogger(name))


def _current() -> Current | None:
    scope = current_scope()
    if isinstance(scope, Branch):
        return Current(scope.run.workflow_id, branch=scope.path)
    if isinstance(scope, StepAttempt):
        return Current(scope.run.workflow_id, scope.key, scope.name, path_of(scope.key))
    return None
