"""Ways on from an end: forks, and retries of what failed or was cancelled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from dbosflow._records.pins import check_queue
from dbosflow._records.spaces import check_workflow_id
from dbosflow._runtime.engine.forks import Forking, step_output
from dbosflow.config import LARGEST_INTEGER, check_identifier, check_whole
from dbosflow.errors import ConfigurationError
from dbosflow.handles import WorkflowHandle

if TYPE_CHECKING:
    from dbosflow._runtime.engine.core import EngineCore
    from dbosflow._runtime.engine.forks import MadeFork
    from dbosflow._runtime.process.host import Host


class _NotGiven:
    """Stands for an output that was not given: ``None`` is one."""

    def __repr__(self) -> str:
        return "NOT_GIVEN"


NOT_GIVEN: Final = _NotGiven()


@dataclass(frozen=True, slots=True)
class WorkflowFork:
    """A fork that was made: a copy of a workflow that goes on from a turn of its past."""

    handle: WorkflowHandle[Any]
    turn: int
    """The turn from which the fork goes on by itself. What was recorded before it is copied, and does not run again."""
    again: tuple[str, ...]
    """What was recorded in that turn, but for the step that was named. It runs again, like all that follows."""
    tokens: tuple[str, ...] = field(default=(), repr=False)  # each id holds a secret
    """The ids of copied tokens that nobody has answered. The ids that were given away are those of the original."""


class Forks:
    """What ``engine.workflows`` does to let a workflow go on from its past, under another id."""

    _host: Host
    _core: EngineCore

    def fork(
        self,
        original: str,
        /,
        *,
        from_step: str | None = None,
        from_turn: int | None = None,
        output: Any = NOT_GIVEN,
        workflow_id: str | None = None,
        queue: str | None = None,
    ) -> WorkflowFork:
        """Forks a workflow from a step or a turn. See ``fork_async``, its awaitable twin."""
        how = _forking(from_step, from_turn, output, workflow_id, queue)
        return self._host.call("fork_async", self._fork, check_identifier("workflow id", original), how)

    async def fork_async(
        self,
        original: str,
        /,
        *,
        from_step: str | None = None,
        from_turn: int | None = None,
        output: Any = NOT_GIVEN,
        workflow_id: str | None = None,
        queue: str | None = None,
    ) -> WorkflowFork:
        """Makes a copy of a workflow that goes on from a step or a turn of its past, and returns its handle.

        The fork is what a crash at that turn would have left, under another id: a worker takes it over, replays what is
        copied, and goes on. All that was durable before the turn is copied, with the values in its streams; what was
        written to inputs from outside is copied whole. The workflow itself stays as it is. It may have ended, or be
        blocked, or still run.

        From a step, the fork runs everything again that was recorded in the step's turn or later: ``again`` names the
        other operations of that turn. The step gets all its attempts. With ``output`` it does not run, but has that
        outcome, and what it had written to streams is rolled back. Children whose start is copied are shared with the
        workflow, and are not removed while the fork runs. Not copied are a cancel request and the parent; a deadline
        begins anew.

        With the same ``workflow_id`` and the same turn, a repeated call finds the fork that is there.

        Args:
            original: the id of the workflow to be forked.
            from_step: the key of a record, as ``list_steps`` shows it.
            from_turn: instead of a step, the first turn that is not copied. 0 begins anew; the last turn + 1 copies
                everything.
            output: what the step ``from_step`` returns in the fork. Without its type, it is written as JSON.
            workflow_id: the id of the fork; default: a new one.
            queue: the queue in which the fork waits for a worker; default: that of the workflow, with the version
                that it is pinned to.

        Raises:
            WorkflowNotFoundError: no workflow has the id.
            WorkflowForkError: the step is not on record, the turn is none of the workflow's, or the fork would wait for
                a child that was removed.
            WorkflowConflictError: ``workflow_id`` belongs to another workflow.
            StreamTruncatedError: a stream was trimmed behind the turn.
            OutdatedWorkersError: live workers of an older version do not know forks.
            PermissionDeniedError: the database role is no worker's.
            ConfigurationError: an argument is not valid.
        """
        how = _forking(from_step, from_turn, output, workflow_id, queue)
        return await self._host.bridge(self._fork(check_identifier("workflow id", original), how))

    def retry(self, original: str, /, *, workflow_id: str | None = None, queue: str | None = None) -> WorkflowFork:
        """Forks a failed or cancelled workflow from before its end. See ``retry_async``, its awaitable twin."""
        return self._host.call("retry_async", self._retry, *_retried(original, workflow_id, queue))

    async def retry_async(
        self, original: str, /, *, workflow_id: str | None = None, queue: str | None = None
    ) -> WorkflowFork:
        """Forks a failed or cancelled workflow from before what ended it, and returns the fork's handle.

        If a step ended it, the step runs again, with all its attempts. If a child did, a new child is started; so are
        new ones for those that were cancelled with the workflow. If its own code raised, everything that is on record
        is copied: then the fork only ends otherwise if the code has changed.

        Args:
            original: the id of the workflow to be retried.
            workflow_id: the id of the fork; default: a new one.
            queue: the queue in which the fork waits for a worker; default: that of the workflow, with the version
                that it is pinned to.

        Raises:
            WorkflowForkError: the workflow has neither failed nor was cancelled; it has undone what it had done, by
                compensations; or a child under a given id ended badly, which a retry would find again.
            WorkflowNotFoundError: no workflow has the id.
            WorkflowConflictError: ``workflow_id`` belongs to another workflow.
            StreamTruncatedError: a stream was trimmed behind the turn.
            OutdatedWorkersError: live workers of an older version do not know forks.
            PermissionDeniedError: the database role is no worker's.
        """
        return await self._host.bridge(self._retry(*_retried(original, workflow_id, queue)))

    async def _fork(self, workflow_id: str, how: Forking) -> WorkflowFork:
        return self._of(await self._core.forks.fork(workflow_id, how))

    async def _retry(self, workflow_id: str, fork_id: str | None, queue: str | None) -> WorkflowFork:
        return self._of(await self._core.forks.retry(workflow_id, fork_id, queue))

    def _of(self, made: MadeFork) -> WorkflowFork:
        return WorkflowFork(
            WorkflowHandle(self._host, self._core, made.fork_id, None), made.turn, made.again, made.tokens
        )


def _forking(step: object, turn: object, output: object, fork_id: str | None, queue: str | None) -> Forking:
    if (step is None) == (turn is None):
        msg = "a fork begins either at a step or at a turn: give from_step= or from_turn="
        raise ConfigurationError(msg)
    if step is None and output is not NOT_GIVEN:
        msg = "output= is that of the step in from_step=, and was given without one"
        raise ConfigurationError(msg)
    if step is not None and (not isinstance(step, str) or not step):
        msg = f"from_step={step!r} must be the key of a record, such as 'charge#0'"
        raise ConfigurationError(msg)
    turn = turn if turn is None else check_whole("from_turn", turn, 0, LARGEST_INTEGER)
    text = None if output is NOT_GIVEN or step is None else step_output(output, step)
    return Forking(step, turn, text, *_place(fork_id, queue))


def _retried(original: str, fork_id: str | None, queue: str | None) -> tuple[str, str | None, str | None]:
    return (check_identifier("workflow id", original), *_place(fork_id, queue))


def _place(fork_id: str | None, queue: str | None) -> tuple[str | None, str | None]:
    if fork_id is not None:
        check_workflow_id(fork_id)
    if queue is not None:
        check_queue(queue)
    return fork_id, queue
