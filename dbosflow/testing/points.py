"""Crash points: places in a run, named by what becomes durable there rather than by counting statements.

Group commit packs a workflow's records differently each time. But a record's key, a stream value's producer and index,
and the start and end of a workflow are the same in every run of a deterministic program.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from dbosflow._records.keys import iteration_path
from dbosflow._runtime.runs.entries import Close, Continuation, Record, Suspension, Values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.journal.batch import Batch
    from dbosflow._runtime.journal.slice import Slice
    from dbosflow._runtime.runs.entries import Start

START = "start"
"""The key of a workflow's start, as a crash point. No record has it: keys of records contain a ``#``."""
END = "end"
"""The key of a workflow's end, as a crash point."""

When = Literal["before", "after"]
"""Before the statement is sent; or after it was committed, and before any waiter is notified."""
WHEN: tuple[When, When] = ("before", "after")


@dataclass(frozen=True, slots=True)
class DurableOperation:
    """A change that a workflow makes durable."""

    workflow_id: str
    key: str
    """The key of a record or of a stream, or ``START``, or ``END``."""
    producer: str | None = None
    """For a stream value: its writer."""
    number: int | None = None
    """For a stream value: how many values its producer had written to the stream before. ``None``: the close."""

    def __str__(self) -> str:
        if self.producer is None:
            what = f"the {self.key}" if self.key in {START, END} else f"record {self.key!r}"
        else:
            by = f" by {self.producer!r}" if self.producer else ""
            value = "the close" if self.number is None else f"value {self.number}"
            what = f"{value} of stream {self.key!r}{by}"
        return f"{what} of workflow {self.workflow_id!r}"


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """A crash: the operation, and the side of its commit."""

    operation: DurableOperation
    when: When

    def __str__(self) -> str:
        if self.when == "before":
            return f"a crash before the statement with {self.operation} was sent"
        return f"a crash after {self.operation} was committed, before the answer came"


def starts(batch: Batch[Run]) -> list[Start]:
    """The workflow starts in a batch: those from programs, and those of children."""
    return [*batch.starts, *(start for part in batch.slices for start in part.starts)]


def operations(batch: Batch[Run]) -> Iterator[DurableOperation]:
    """The operations that a batch makes durable, in order, without those that the engine adds, such as rollbacks."""
    for start in batch.starts:
        yield DurableOperation(start.workflow_id, START)
        yield from _of_end(start)
    for part in batch.parts():
        yield from _of_slice(part)
        for start in part.starts:
            yield from _of_end(start)


def holds(batch: Batch[Run], operation: DurableOperation, name_of: Callable[[str], str]) -> bool:
    """Whether a batch makes the operation durable. ``name_of`` maps a workflow's id to the name in the operation."""
    if operation.key == START and operation.producer is None:
        return any(name_of(start.workflow_id) == operation.workflow_id for start in starts(batch))
    if operation.key == END and operation.producer is None:
        ended = (start for start in starts(batch) if start.outcome is not None)
        if any(name_of(start.workflow_id) == operation.workflow_id for start in ended):
            return True
    return any(
        _matches(replace(found, workflow_id=operation.workflow_id), operation, part)
        for part in batch.parts()
        if name_of(part.run.workflow_id) == operation.workflow_id
        for found in _of_slice(part)
    )


def values(part: Slice[Run]) -> Iterator[Values]:
    """The stream values in a slice."""
    for entry in part.entries:
        if isinstance(entry, Values):
            yield entry


def _matches(found: DurableOperation, wanted: DurableOperation, part: Slice[Run]) -> bool:
    if found == wanted:
        return True
    if wanted.producer is None or wanted.number is None or found.number is None:
        return False
    if (found.key, found.producer) != (wanted.key, wanted.producer):
        return False
    counts = (len(one.texts) for one in values(part) if (one.key, one.producer) == (found.key, found.producer))
    return found.number <= wanted.number < found.number + sum(counts)


def _of_end(start: Start) -> Iterator[DurableOperation]:
    """The end of a workflow that is written with its start, and nothing else."""
    if start.outcome is not None and start.content is None:
        yield DurableOperation(start.workflow_id, END)


def _of_slice(part: Slice[Run]) -> Iterator[DurableOperation]:
    workflow_id = part.run.workflow_id
    for entry in part.entries:
        if isinstance(entry, Record):
            yield DurableOperation(workflow_id, entry.key)
        elif isinstance(entry, Values):
            yield DurableOperation(workflow_id, entry.key, entry.producer, entry.producer_seq)
        elif isinstance(entry, Close):
            yield DurableOperation(workflow_id, entry.key, entry.producer)
    if isinstance(part.ending, Continuation):
        yield DurableOperation(workflow_id, iteration_path(part.ending.iteration))
    elif part.ending is not None and not isinstance(part.ending, Suspension):
        yield DurableOperation(workflow_id, END)
