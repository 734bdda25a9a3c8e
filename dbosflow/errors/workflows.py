"""Errors about one workflow."""

from __future__ import annotations

from dbosflow.errors.general import DbosflowError


class WorkflowError(DbosflowError):
    """The base of the errors about one workflow. ``workflow_id`` says which one."""

    def __init__(self, workflow_id: str, message: str) -> None:
        super().__init__(workflow_id, message)
        self.workflow_id = workflow_id
        self.message = message

    def __str__(self) -> str:
        return self.message


class WorkflowNotFoundError(WorkflowError):
    """No workflow has this id."""


class WorkflowExistsError(WorkflowError):
    """An import would insert a workflow whose id is taken."""


class WorkflowTransferError(DbosflowError):
    """Workflows cannot be exported, or the file cannot be imported; the message says why."""


class WorkflowConflictError(WorkflowError):
    """The id belongs to an execution of another workflow function."""


class DuplicateWorkflowError(WorkflowError):
    """A workflow that has not ended has the ``dedup_key``. ``workflow_id`` says which one. Nothing was started."""


class ContinueAsNewError(WorkflowError):
    """The workflow cannot be continued as new from there; it goes on as it is. The message says what can be done."""


class WorkflowForkError(WorkflowError):
    """The workflow cannot be forked from there, or retried. Nothing was written. The message says what can be done."""


class WorkflowFailedError(WorkflowError):
    """The workflow failed, and its own exception cannot be rebuilt in this process.

    ``error_type`` and ``error_message`` describe that exception.
    """

    def __init__(self, workflow_id: str, error_type: str, error_message: str) -> None:
        super().__init__(workflow_id, f"workflow {workflow_id!r} failed with {error_type}: {error_message}")
        self.args = (workflow_id, error_type, error_message)
        self.error_type = error_type
        self.error_message = error_message


class WorkflowCancelledError(WorkflowError):
    """The workflow was cancelled. ``reason`` is what the caller of ``cancel`` said, or ``None``."""

    reason: str | None = None

    def __init__(self, workflow_id: str, message: str, reason: str | None = None) -> None:
        super().__init__(workflow_id, message)
        self.reason = reason


class WorkflowTimeoutError(WorkflowError):
    """The workflow has not ended by its deadline, and has failed for that."""


class WorkflowBlockedError(WorkflowError):
    """The workflow is parked as ``blocked``. The message says why. ``engine.resume`` lets it go on."""


class DeadlockError(WorkflowError):
    """The workflow asked for a wait that cannot end: for its own result, or for a workflow that waits for it.

    The error is recorded as the outcome of the wait, so a replay takes the same path.
    """


class NonDeterminismError(WorkflowError):
    """The code does something other than its records say. The message names both, and the ways out."""


class LeaseLostError(DbosflowError):
    """This process no longer owns the workflow. Another worker has taken it over."""
