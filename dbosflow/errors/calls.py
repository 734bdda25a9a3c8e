"""Errors of calls that are made in the wrong place, or that wait too long."""

from __future__ import annotations

from dbosflow.errors.general import DbosflowError


class BlockingCallError(DbosflowError):
    """A blocking call was made on a running event loop. The message names its awaitable twin."""


class WrongColourError(DbosflowError):
    """A sync function was called plainly from async code, or the reverse. The message names the right call."""


class NotInWorkflowError(DbosflowError):
    """The call is only valid inside a workflow."""


class InWorkflowError(DbosflowError):
    """The call is not allowed in a workflow's body, where a replay would get another answer. Make it in a step."""


class BranchError(DbosflowError):
    """Durable work was requested by code that is not the branch whose context it carries.

    A branch is one thread of control. If a callback, a thread, or a task that merely inherited a branch's context
    did durable work, the keys of its records would depend on timing. The work is therefore refused. The message says
    how to write it instead.
    """


class ThreadLimitError(DbosflowError):
    """A sync workflow cannot wait: ``waiting_threads`` of them wait already, each on a thread of its own."""


class WaitTimeoutError(DbosflowError, TimeoutError):
    """The wait timed out. The workflow that was waited for goes on."""
