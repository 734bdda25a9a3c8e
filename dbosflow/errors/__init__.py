"""Every error that dbosflow raises. Each class stands for one fact that a caller can act on.

```text
DbosflowError
├── ConfigurationError          a setting is wrong or missing
├── DefinitionError             a function cannot be decorated or called in this way
├── DatabaseUnavailableError    no connection within the time allowed
├── SchemaError                 the database's schema and this code do not fit together
├── PermissionDeniedError       the database role lacks a privilege
├── NoTransactionError          a connection in autocommit, closed or failed: there is no transaction to take part in
├── WrongDatabaseError          a connection to another database than the engine's
├── OutdatedWorkersError        live workers of an older version do not know what was asked for
├── EngineClosedError           the engine is not open, or no longer open
├── BlockingCallError           a blocking call on a running event loop; names the awaitable twin
├── WrongColourError            a sync function was called like an async one, or the reverse
├── NotInWorkflowError          the call is only valid inside a workflow
├── InWorkflowError             the call is only valid in a step or outside of workflows
├── BranchError                 durable work from code that is no branch of the workflow
├── SerializationError          JSON cannot carry the value under its declared type
├── CodecError                  a payload cannot be decoded by the codecs of this process
│   └── MissingKeyError         it is encrypted with a key that this process does not have; names the key
├── WorkflowError               an error about one workflow
│   ├── WorkflowNotFoundError
│   ├── WorkflowConflictError   the id belongs to another workflow function
│   ├── DuplicateWorkflowError  a workflow that has not ended has the dedup_key
│   ├── ContinueAsNewError      the workflow cannot be continued as new here; says what can be done
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
├── TransactionError            the function of a transaction did what only the engine may do
├── NonRetryableError           raised by a step: another attempt cannot help
├── RetryAfter                  raised by a step: the next attempt is to wait for so long
├── ThreadLimitError            the limit of waiting sync workflows is reached
├── WaitTimeoutError            the wait timed out; the workflow goes on
├── MessageTimeoutError         in a workflow: no message, or no answer to a token, within the timeout
├── RejectedError               a token or a request was rejected, with an error that cannot be rebuilt here
├── ScheduleNotFoundError
├── RequestRefusedError         raised by a guard: a request over HTTP is refused, with a status and a detail
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

from dbosflow.errors.calls import (
    BlockingCallError,
    BranchError,
    InWorkflowError,
    NotInWorkflowError,
    ThreadLimitError,
    WaitTimeoutError,
    WrongColourError,
)
from dbosflow.errors.general import (
    CodecError,
    ConfigurationError,
    DatabaseUnavailableError,
    DbosflowError,
    DefinitionError,
    EngineClosedError,
    MissingKeyError,
    OutdatedWorkersError,
    PermissionDeniedError,
    SchemaError,
    SerializationError,
)
from dbosflow.errors.http import RequestRefusedError
from dbosflow.errors.messages import (
    AlreadyAnsweredError,
    EventNotFoundError,
    InboxFullError,
    MessageTimeoutError,
    MessageTooLargeError,
    RejectedError,
    TokenNotFoundError,
    WorkflowEndedError,
)
from dbosflow.errors.outbox import NoTransactionError, WrongDatabaseError
from dbosflow.errors.schedules import ScheduleNotFoundError
from dbosflow.errors.steps import (
    NonRetryableError,
    RetryAfter,
    StepFailedError,
    StepTimeoutError,
)
from dbosflow.errors.streams import (
    StreamBackPressureError,
    StreamCancelledError,
    StreamClosedError,
    StreamError,
    StreamFailedError,
    StreamFullError,
    StreamInputError,
    StreamNotFoundError,
    StreamRolledBackError,
    StreamTimeoutError,
    StreamTruncatedError,
    StreamValueTooLargeError,
)
from dbosflow.errors.transactions import TransactionError
from dbosflow.errors.workflows import (
    ContinueAsNewError,
    DeadlockError,
    DuplicateWorkflowError,
    LeaseLostError,
    NonDeterminismError,
    WorkflowBlockedError,
    WorkflowCancelledError,
    WorkflowConflictError,
    WorkflowError,
    WorkflowExistsError,
    WorkflowFailedError,
    WorkflowForkError,
    WorkflowNotFoundError,
    WorkflowTimeoutError,
    WorkflowTransferError,
)

__all__ = [
    "AlreadyAnsweredError",
    "BlockingCallError",
    "BranchError",
    "CodecError",
    "ConfigurationError",
    "ContinueAsNewError",
    "DatabaseUnavailableError",
    "DbosflowError",
    "DeadlockError",
    "DefinitionError",
    "DuplicateWorkflowError",
    "EngineClosedError",
    "EventNotFoundError",
    "InWorkflowError",
    "InboxFullError",
    "LeaseLostError",
    "MessageTimeoutError",
    "MessageTooLargeError",
    "MissingKeyError",
    "NoTransactionError",
    "NonDeterminismError",
    "NonRetryableError",
    "NotInWorkflowError",
    "OutdatedWorkersError",
    "PermissionDeniedError",
    "RejectedError",
    "RequestRefusedError",
    "RetryAfter",
    "ScheduleNotFoundError",
    "SchemaError",
    "SerializationError",
    "StepFailedError",
    "StepTimeoutError",
    "StreamBackPressureError",
    "StreamCancelledError",
    "StreamClosedError",
    "StreamError",
    "StreamFailedError",
    "StreamFullError",
    "StreamInputError",
    "StreamNotFoundError",
    "StreamRolledBackError",
    "StreamTimeoutError",
    "StreamTruncatedError",
    "StreamValueTooLargeError",
    "ThreadLimitError",
    "TokenNotFoundError",
    "TransactionError",
    "WaitTimeoutError",
    "WorkflowBlockedError",
    "WorkflowCancelledError",
    "WorkflowConflictError",
    "WorkflowEndedError",
    "WorkflowError",
    "WorkflowExistsError",
    "WorkflowFailedError",
    "WorkflowForkError",
    "WorkflowNotFoundError",
    "WorkflowTimeoutError",
    "WorkflowTransferError",
    "WrongColourError",
    "WrongDatabaseError",
]

for _name in __all__:
    globals()[_name].__module__ = __name__  # the name that records of errors hold, whatever file a class stands in
