"""The types that every floor shares: statuses, stream items, and the records of workflows."""

from __future__ import annotations

from dbosflow.types.durations import (
    LONGEST_DURATION,
)
from dbosflow.types.events import (
    Event,
)
from dbosflow.types.listings import (
    Page,
)
from dbosflow.types.observation import (
    Measure,
    StreamEvent,
    StreamEventKind,
    StreamStats,
)
from dbosflow.types.queues import (
    QueueInfo,
    Rate,
)
from dbosflow.types.schedules import (
    Overlap,
    ScheduleInfo,
    Tick,
)
from dbosflow.types.streams import (
    FrameKind,
    Processed,
    Ranges,
    Rollback,
    StreamInfo,
    StreamOutcome,
    StreamState,
    StreamValue,
)
from dbosflow.types.workers import (
    RunningWorkflow,
    WorkerInfo,
)
from dbosflow.types.workflows import (
    Cancellation,
    OnDuplicate,
    Resumption,
    StepInfo,
    WorkflowChange,
    WorkflowInfo,
    WorkflowStatus,
)

__all__ = [
    "LONGEST_DURATION",
    "Cancellation",
    "Event",
    "FrameKind",
    "Measure",
    "OnDuplicate",
    "Overlap",
    "Page",
    "Processed",
    "QueueInfo",
    "Ranges",
    "Rate",
    "Resumption",
    "Rollback",
    "RunningWorkflow",
    "ScheduleInfo",
    "StepInfo",
    "StreamEvent",
    "StreamEventKind",
    "StreamInfo",
    "StreamOutcome",
    "StreamState",
    "StreamStats",
    "StreamValue",
    "Tick",
    "WorkerInfo",
    "WorkflowChange",
    "WorkflowInfo",
    "WorkflowStatus",
]
