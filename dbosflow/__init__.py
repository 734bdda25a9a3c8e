"""dbosflow: durable workflows and durable streams for Python, on nothing but Postgres.

```text
floor 6  cli testing                                      edges: nothing imports them
floor 5  engine                                           the composition root and facade
floor 4  management                                       what operators call
floor 4  workflows steps streams timers durable ...       the API for authors of workflows
floor 3  _runtime                                         all the asyncio
floor 2  _store _embedded                                 all the SQL; a server for development and tests
floor 1  config serde definitions                         settings; JSON by annotations; what the decorators record
floor 0  errors types                                     the shared vocabulary
```
"""

from dbosflow import durable
from dbosflow.compensations import compensate
from dbosflow.config import VERSION as __version__  # noqa: N811 (the name that tools look for)
from dbosflow.config import Retention
from dbosflow.context import Current, branch, current, get_logger, patched
from dbosflow.engine import Engine
from dbosflow.events import set_event, set_event_async
from dbosflow.fan_out import (
    as_completed,
    as_completed_async,
    map_workflow,
    map_workflow_async,
    wait_first,
    wait_first_async,
)
from dbosflow.filters import WorkflowFilter
from dbosflow.handles import WorkflowHandle
from dbosflow.iterations import continue_as_new
from dbosflow.management.explanation import Cause, Explanation
from dbosflow.management.forks import WorkflowFork
from dbosflow.messages import (
    AsyncRequest,
    Message,
    Request,
    Token,
    create_token,
    create_token_async,
    recv,
    recv_async,
    requests,
    send,
    send_async,
)
from dbosflow.queue_definitions import Queue
from dbosflow.schedules import Schedule, schedule
from dbosflow.steps import run_step, run_step_async, step
from dbosflow.streams import (
    Stream,
    StreamChannel,
    StreamReader,
    StreamValue,
    StreamWriter,
    close_stream,
    close_stream_async,
    for_each,
    for_each_async,
    read_input,
    read_input_async,
    read_stream,
    read_stream_async,
    write_stream,
    write_stream_async,
)
from dbosflow.timers import sleep, sleep_async, timeout, wait
from dbosflow.transactions import transaction
from dbosflow.types import (
    Cancellation,
    QueueInfo,
    Rate,
    Resumption,
    ScheduleInfo,
    Tick,
    WorkerInfo,
    WorkflowInfo,
    WorkflowStatus,
)
from dbosflow.workflows import workflow

__all__ = [
    "AsyncRequest",
    "Cancellation",
    "Cause",
    "Current",
    "Engine",
    "Explanation",
    "Message",
    "Queue",
    "QueueInfo",
    "Rate",
    "Request",
    "Resumption",
    "Retention",
    "Schedule",
    "ScheduleInfo",
    "Stream",
    "StreamChannel",
    "StreamReader",
    "StreamValue",
    "StreamWriter",
    "Tick",
    "Token",
    "WorkerInfo",
    "WorkflowFilter",
    "WorkflowFork",
    "WorkflowHandle",
    "WorkflowInfo",
    "WorkflowStatus",
    "__version__",
    "as_completed",
    "as_completed_async",
    "branch",
    "close_stream",
    "close_stream_async",
    "compensate",
    "continue_as_new",
    "create_token",
    "create_token_async",
    "current",
    "durable",
    "for_each",
    "for_each_async",
    "get_logger",
    "map_workflow",
    "map_workflow_async",
    "patched",
    "read_input",
    "read_input_async",
    "read_stream",
    "read_stream_async",
    "recv",
    "recv_async",
    "requests",
    "run_step",
    "run_step_async",
    "schedule",
    "send",
    "send_async",
    "set_event",
    "set_event_async",
    "sleep",
    "sleep_async",
    "step",
    "timeout",
    "transaction",
    "wait",
    "wait_first",
    "wait_first_async",
    "workflow",
    "write_stream",
    "write_stream_async",
]
