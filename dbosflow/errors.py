"""Every error that dbosflow raises, each class one fact that a caller can act on.

```text
DbosflowError
├── ConfigurationError          a setting is wrong or missing
├── DefinitionError             a decorated function cannot be used the way it is written
├── DatabaseUnavailableError    no connection within the time allowed
├── SchemaError                 the database's schema and this code do not fit
├── PermissionDeniedError       the database role may not do what was asked
├── EngineClosedError           the engine is not open (any more)
├── BlockingCallError           a blocking call on a running event loop; names its awaitable twin
├── WrongColourError            a plain call of a sync function from async code, or the reverse
├── NotInWorkflowError          the call needs a workflow around it
├── InWorkflowError             the call belongs in a step, or outside of workflows
├── BranchError                 durable work from something that is no branch of the workflow
├── SerializationError          a value that JSON cannot carry under its declared type
├── WorkflowError               what can be said of one workflow
│   ├── WorkflowNotFoundError
│   ├── WorkflowConflictError   the id belongs to another workflow function
│   ├── WorkflowFailedError     it failed, and its own exception cannot be rebuilt here
│   ├── WorkflowCancelledError
│   ├── WorkflowBlockedError    it is parked until somebody resumes it
│   ├── DeadlockError           it waits for itself, at once or through others
│   └── NonDeterminismError     its code and its records disagree
├── StepFailedError             a step failed, and its own exception cannot be rebuilt here
├── ThreadLimitError            as many sync workflows wait as may
├── WaitTimeoutError            only the wait ended; what was waited for goes on
├── LeaseLostError              this process no longer owns what it tried to write
└── StreamError
    ├── StreamNotFoundError     nobody has written to a stream of this key
    ├── StreamClosedError       a write after the close
    ├── StreamValueTooLargeError    a value above the limit for one
    ├── StreamFullError         the stream has had as many values, or bytes, as it may
    ├── StreamBackPressureError     no room for a value in time: the database does not keep up
    ├── StreamInputError        a write from outside to what is no input, or from inside to one
    ├── StreamRolledBackError   values that were read are rolled back; reading can go on
    ├── StreamTruncatedError    what was to be read is trimmed; names the first offset there is
    ├── StreamTimeoutError      no news within the reader's timeout; reading can go on
    ├── StreamFailedError       the stream ended with its workflow's error
    └── StreamCancelledError    the stream ended with its workflow's cancellation
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dbosflow.types import Rollback


class DbosflowError(Exception):
    """The root of every error that dbosflow raises."""


class ConfigurationError(DbosflowError):
    """A setting is wrong or missing; the message says which and what to write instead."""


class DefinitionError(DbosflowError):
    """A decorated function cannot be used the way it is written."""


class DatabaseUnavailableError(DbosflowError):
    """No connection to Postgres could be made within the time allowed."""


class SchemaError(DbosflowError):
    """The database's schema and this version of dbosflow do not fit together."""


class PermissionDeniedError(DbosflowError):
    """The database role may not do what was asked: the message says on what it lacks rights. Nothing was written."""


class EngineClosedError(DbosflowError):
    """The engine is not open: open it with ``with``, ``async with`` or ``open()`` first."""


class BlockingCallError(DbosflowError):
    """A blocking call was made on a running event loop; the message names its awaitable twin."""


class WrongColourError(DbosflowError):
    """A sync function was called plainly from async code, or the reverse; the message names the right call."""


class NotInWorkflowError(DbosflowError):
    """The call only means something inside a workflow."""


class InWorkflowError(DbosflowError):
    """The call is none for a workflow's body, where a replay would get another answer: make it in a step."""


class BranchError(DbosflowError):
    """Durable work was asked for by something that is not the branch whose context it carries.

    A branch is one thread of control. A callback, a thread, or a task that merely inherited a branch's context
    would get keys by timing, so it is refused; the message says how to write it instead.
    """


class SerializationError(DbosflowError):
    """A value cannot travel as JSON under its declared type; the message names the function and the type."""


class WorkflowError(DbosflowError):
    """What can be said of one workflow; ``workflow_id`` tells which."""

    def __init__(self, workflow_id: str, message: str) -> None:
        super().__init__(workflow_id, message)
        self.workflow_id = workflow_id
        self.message = message

    def __str__(self) -> str:
        return self.message


class WorkflowNotFoundError(WorkflowError):
    """No workflow has this id."""


class WorkflowConflictError(WorkflowError):
    """The id is taken by an execution of another workflow function."""


class WorkflowFailedError(WorkflowError):
    """The workflow failed with an exception whose class cannot be rebuilt in this process."""

    def __init__(self, workflow_id: str, error_type: str, error_message: str) -> None:
        super().__init__(workflow_id, f"workflow {workflow_id!r} failed with {error_type}: {error_message}")
        self.args = (workflow_id, error_type, error_message)
        self.error_type = error_type
        self.error_message = error_message


class WorkflowCancelledError(WorkflowError):
    """The workflow was cancelled."""


class WorkflowBlockedError(WorkflowError):
    """The workflow is parked as ``blocked``; the message says why. ``engine.resume`` lets it go on."""


class DeadlockError(WorkflowError):
    """The workflow asked for a wait that cannot end: for its own result, or for one that waits for it.

    It is recorded as what came of the wait, so that a replay goes the same way.
    """


class NonDeterminismError(WorkflowError):
    """The code does something else than its records hold: says what, what they hold since when, and the ways out."""


class StepFailedError(DbosflowError):
    """A step failed with an exception that cannot be rebuilt from its record.

    Raised live and on replay alike, so that a workflow's ``except`` clauses take the same path both times.
    """

    def __init__(self, error_type: str, error_message: str) -> None:
        super().__init__(error_type, error_message)
        self.error_type = error_type
        self.error_message = error_message

    def __str__(self) -> str:
        return f"{self.error_type}: {self.error_message}"


class ThreadLimitError(DbosflowError):
    """A sync workflow cannot wait: as many as may (``waiting_threads``) do so already, each on a thread of its own."""


class WaitTimeoutError(DbosflowError, TimeoutError):
    """The wait ended; what was waited for goes on."""


class LeaseLostError(DbosflowError):
    """This process no longer owns the workflow: another worker has taken it over."""


class StreamError(DbosflowError):
    """What can be said of one stream; ``workflow_id`` and ``key`` tell which."""

    def __init__(self, workflow_id: str, key: str, message: str) -> None:
        super().__init__(workflow_id, key, message)
        self.workflow_id = workflow_id
        self.key = key
        self.message = message

    def __str__(self) -> str:
        return self.message


class StreamNotFoundError(StreamError):
    """Nobody has written to a stream of this key. A reader of it waits; only looking at it fails."""


class StreamClosedError(StreamError):
    """The stream is closed; nothing can be written after the close."""


class StreamValueTooLargeError(StreamError):
    """The value is above the engine's ``value_bytes``, and was not written. Write it in parts, or a reference to it."""


class StreamFullError(StreamError):
    """The stream has had its ``stream_values`` or ``stream_bytes``; the value was not written, and none will be."""


class StreamBackPressureError(StreamError):
    """There was no room for the value within ``buffer_timeout``, and it was not written; it may be written again.

    Room comes from the database alone, when it commits what was written before: no reader can hold a writer up.
    """


class StreamInputError(StreamError):
    """The key and its user do not fit: outsiders write declared inputs only, and their workflow all but them."""


class StreamRolledBackError(StreamError):
    """A step's attempt failed: values of it that were read no longer count. The reader stays usable.

    ``rollback`` says which offsets. Read with ``on_rollback=``, or with ``view="committed"``, which is never ahead
    of an attempt in flight.
    """

    def __init__(self, workflow_id: str, key: str, message: str, rollback: Rollback) -> None:
        super().__init__(workflow_id, key, message)
        self.args = (workflow_id, key, message, rollback)
        self.rollback = rollback


class StreamTruncatedError(StreamError):
    """What was to be read is gone: the stream was trimmed. Reading can begin at ``first_available``."""

    def __init__(self, workflow_id: str, key: str, message: str, first_available: int) -> None:
        super().__init__(workflow_id, key, message)
        self.args = (workflow_id, key, message, first_available)
        self.first_available = first_available


class StreamTimeoutError(StreamError, TimeoutError):
    """No value and no end arrived within the reader's ``timeout``; the reader stays usable."""


class StreamFailedError(StreamError):
    """The workflow failed while the stream was open; its exception is the ``__cause__``."""


class StreamCancelledError(StreamError):
    """The workflow was cancelled while the stream was open."""
