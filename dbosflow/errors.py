"""Every error that dbosflow raises. Each class stands for one fact that a caller can act on.

```text
DbosflowError
├── ConfigurationError          a setting is wrong or missing
├── ConfigurationError          a setting is wrong or missing
├── DefinitionError             a function cannot be decorated or called in this way
├── DatabaseUnavailableError    no connection within the time allowed
├── SchemaError                 the database's schema and this code do not fit together
├── PermissionDeniedError       the database role lacks a privilege
├── OutdatedWorkersError        live workers of an older version do not know what was asked for
├── EngineClosedError           the engine is not open, or no longer open
├── BlockingCallError           a blocking call on a running event loop; names the awaitable twin
├── WrongColourError            a sync function was called like an async one, or the reverse
├── NotInWorkflowError          the call is only valid inside a workflow
├── InWorkflowError             the call is only valid in a step or outside of workflows
├── BranchError                 durable work from code that is no branch of the workflow
├── SerializationError          JSON cannot carry the value under its declared type
├── WorkflowError               an error about one workflow
│   ├── WorkflowNotFoundError
│   ├── WorkflowConflictError   the id belongs to another workflow function
│   ├── WorkflowForkError       the workflow cannot be forked or retried in this way; says what can be done
│   ├── WorkflowFailedError     the workflow failed, and its own exception cannot be rebuilt here
│   ├── WorkflowCancelledError
│   ├── WorkflowTimeoutError    the workflow has not ended by its deadline
│   ├── WorkflowBlockedError    the workflow is parked until it is resumed
│   ├── EventNotFoundError      the workflow has ended without setting the event
│   ├── TokenNotFoundError      no such token, or its secret is another one
│   ├── AlreadyAnsweredError    the token or request has an answer, which counts
│   ├── WorkflowEndedError      a message to a workflow that has ended
│   ├── InboxFullError          a message to a workflow that has too many, or on too many topics
│   ├── MessageTooLargeError    the message is above the limit for one message
│   ├── WorkflowExistsError     an import of a workflow whose id is taken
│   ├── DeadlockError           the workflow waits for itself, directly or through others
│   └── NonDeterminismError     the workflow's code and its records disagree
├── WorkflowTransferError       an export of what runs, or an import of a file that is none or is damaged
├── StepFailedError             a step failed, and its own exception cannot be rebuilt here
├── StepTimeoutError            an attempt of a step took longer than the step's timeout
├── NonRetryableError           raised by a step: another attempt cannot help
├── RetryAfter                  raised by a step: the next attempt is to wait for so long
├── ThreadLimitError            the limit of waiting sync workflows is reached
├── WaitTimeoutError            the wait timed out; the workflow goes on
├── MessageTimeoutError         in a workflow: no message, or no answer to a token, within the timeout
├── RejectedError               a token or a request was rejected, with an error that cannot be rebuilt here
├── LeaseLostError              this process no longer owns the workflow that it tried to write to
└── StreamError                 an error about one stream
    ├── StreamNotFoundError     nothing has been written to a stream of this key
    ├── StreamClosedError       a write after the close
    ├── StreamValueTooLargeError    the value is above the limit for one value
    ├── StreamFullError         the stream has reached its limit of values or bytes
    ├── StreamBackPressureError     no room for the value in time: the database does not keep up
    ├── StreamInputError        a write from outside to a stream that is no input, or from inside to an input
    ├── StreamRolledBackError   values that were read have been rolled back; reading can go on
    ├── StreamTruncatedError    the values to be read are trimmed; names the first offset that is left
    ├── StreamTimeoutError      no news within the reader's timeout; reading can go on
    ├── StreamFailedError       the stream ended with its workflow's error
    └── StreamCancelledError    the stream ended with its workflow's cancellation
```
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from dbosflow.types import LONGEST_DURATION

if TYPE_CHECKING:
    from dbosflow.types import Rollback


class DbosflowError(Exception):
    """The root of every error that dbosflow raises."""


class ConfigurationError(DbosflowError):
    """A setting is wrong or missing. The message says which one, and what to write instead."""


class DefinitionError(DbosflowError):
    """A function cannot be decorated or called in this way. The message says what to write instead."""


class DatabaseUnavailableError(DbosflowError):
    """No connection to Postgres could be made within the time allowed."""


class SchemaError(DbosflowError):
    """The database's schema and this version of dbosflow do not fit together."""


class PermissionDeniedError(DbosflowError):
    """The database role lacks a privilege. The message says on which object. Nothing was written."""


class OutdatedWorkersError(DbosflowError):
    """Workers of an older version are live, and cannot carry out what was asked for. The message names them."""


class EngineClosedError(DbosflowError):
    """The engine is not open. Open it with ``with``, ``async with`` or ``open()`` first."""


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


class SerializationError(DbosflowError):
    """JSON cannot carry a value under its declared type. The message names the function and the type."""


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


class WorkflowEndedError(WorkflowError):
    """The workflow has ended, and receives nothing any more. Nothing was sent."""


class EventNotFoundError(WorkflowError):
    """The workflow has ended, and has not set the event, or not set it again."""


class TokenNotFoundError(WorkflowError):
    """The workflow has no such token, or the secret in the token's id is not that of the token. Nothing was written."""


class AlreadyAnsweredError(WorkflowError):
    """The token, or the request, has an answer already, which counts. This one was not written."""


class InboxFullError(WorkflowError):
    """The workflow has as many messages as it may have: ``inbox_values`` on the topic, or on ``inbox_topics`` topics.

    Nothing was sent. Room becomes free when the workflow receives messages.
    """


class MessageTooLargeError(WorkflowError):
    """The message is above the engine's ``message_bytes``. Nothing was sent."""


class DeadlockError(WorkflowError):
    """The workflow asked for a wait that cannot end: for its own result, or for a workflow that waits for it.

    The error is recorded as the outcome of the wait, so a replay takes the same path.
    """


class NonDeterminismError(WorkflowError):
    """The code does something other than its records say. The message names both, and the ways out."""


class StepFailedError(DbosflowError):
    """A step failed, and its own exception cannot be rebuilt from the record.

    The error is the same live and on replay, so a workflow's ``except`` clauses take the same path both times.
    ``error_type`` and ``error_message`` describe the step's own exception.
    """

    def __init__(self, error_type: str, error_message: str) -> None:
        super().__init__(error_type, error_message)
        self.error_type = error_type
        self.error_message = error_message

    def __str__(self) -> str:
        return f"{self.error_type}: {self.error_message}"


class StepTimeoutError(DbosflowError, TimeoutError):
    """An attempt of a step took longer than its ``timeout``, and was cancelled. It is retried like any failure."""


class NonRetryableError(DbosflowError):
    """Raised by a step that another attempt cannot help: it fails at once, whatever its retry options say.

    ``NonRetryableError("no such account")`` is the step's outcome itself. ``NonRetryableError(error)`` around another
    exception has the step fail with that one, so that the workflow's ``except`` clauses see it.
    """

    def __init__(self, reason: str | BaseException = "") -> None:
        super().__init__(reason)

    @property
    def error(self) -> BaseException | None:
        """The exception that the step fails with in place of this one."""
        reason = self.args[0] if self.args else None
        return reason if isinstance(reason, BaseException) else None


class RetryAfter(DbosflowError):  # noqa: N818 (it says what to do, as the header of HTTP that it is made from)
    """Raised by a step that an outside service asked to wait: the next attempt begins ``seconds`` later, not earlier.

    The time is on record, so a crash does not make the next attempt earlier. It is not bounded by ``max_interval``, and
    whatever ``retry_on`` says there is a next attempt, as long as ``max_attempts`` allows one. Behind the last one the
    step fails with this error, or with ``error`` if that is given.

    Args:
        seconds: seconds, or a ``timedelta``.
        error: the exception that the step fails with in place of this one.

    Raises:
        ConfigurationError: ``seconds`` is no duration.
    """

    def __init__(self, seconds: float | timedelta, error: BaseException | None = None) -> None:
        number: Any = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        if not isinstance(number, int | float) or isinstance(number, bool) or not 0 <= number <= LONGEST_DURATION:
            msg = f"RetryAfter({seconds!r}) must be a number of seconds, or a timedelta, of 0 up to a hundred years"
            raise ConfigurationError(msg)
        super().__init__(number)
        self.seconds = float(number)
        self.error = error

    def __str__(self) -> str:
        return f"to be tried again after {self.seconds:g} s" if self.error is None else str(self.error)


class ThreadLimitError(DbosflowError):
    """A sync workflow cannot wait: ``waiting_threads`` of them wait already, each on a thread of its own."""


class WaitTimeoutError(DbosflowError, TimeoutError):
    """The wait timed out. The workflow that was waited for goes on."""


class MessageTimeoutError(DbosflowError, TimeoutError):
    """In a workflow: no message came, or nobody answered the token, within the ``timeout``. A replay raises it, too."""


class RejectedError(DbosflowError):
    """A token or a request was rejected, with a text, or with an exception that cannot be rebuilt from its record."""


class LeaseLostError(DbosflowError):
    """This process no longer owns the workflow. Another worker has taken it over."""


class StreamError(DbosflowError):
    """The base of the errors about one stream. ``workflow_id`` and ``key`` say which one."""

    def __init__(self, workflow_id: str, key: str, message: str) -> None:
        super().__init__(workflow_id, key, message)
        self.workflow_id = workflow_id
        self.key = key
        self.message = message

    def __str__(self) -> str:
        return self.message


class StreamNotFoundError(StreamError):
    """Nothing has been written to a stream of this key. Reading such a stream waits; only looking it up fails."""


class StreamClosedError(StreamError):
    """The stream is closed. Nothing can be written to it any more."""


class StreamValueTooLargeError(StreamError):
    """The value is above the engine's ``value_bytes`` and was not written. Write parts, or a reference to it."""


class StreamFullError(StreamError):
    """The stream has reached its ``stream_values`` or ``stream_bytes``. No more values are written."""


class StreamBackPressureError(StreamError):
    """There was no room for the value within ``buffer_timeout``. It was not written, and may be written again.

    Room becomes free when the database commits earlier values. A slow reader never holds up a writer.
    """


class StreamInputError(StreamError):
    """A write from outside to a stream that is not a declared input, or a write by the workflow to its own input."""


class StreamRolledBackError(StreamError):
    """An attempt of a step failed, and values of it that were read no longer count. The reader stays usable.

    ``rollback`` has their offsets. To handle rollbacks without an error, read with ``on_rollback=``, or with
    ``view="committed"``, which never shows values of an attempt that is still running.
    """

    def __init__(self, workflow_id: str, key: str, message: str, rollback: Rollback) -> None:
        super().__init__(workflow_id, key, message)
        self.args = (workflow_id, key, message, rollback)
        self.rollback = rollback


class StreamTruncatedError(StreamError):
    """The values to be read are gone, because the stream was trimmed. ``first_available`` is the first offset left."""

    def __init__(self, workflow_id: str, key: str, message: str, first_available: int) -> None:
        super().__init__(workflow_id, key, message)
        self.args = (workflow_id, key, message, first_available)
        self.first_available = first_available


class StreamTimeoutError(StreamError, TimeoutError):
    """No value and no end arrived within the reader's ``timeout``. The reader stays usable."""


class StreamFailedError(StreamError):
    """The workflow failed while the stream was open. Its exception is the ``__cause__``."""


class StreamCancelledError(StreamError):
    """The workflow was cancelled while the stream was open. ``reason`` is what the caller of ``cancel`` said."""

    reason: str | None = None

    def __init__(self, workflow_id: str, key: str, message: str, reason: str | None = None) -> None:
        super().__init__(workflow_id, key, message)
        self.reason = reason
