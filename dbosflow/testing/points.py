"""Crash points: places in a run that are named by what becomes durable there, not by how many statements came before.

Group commit packs a workflow's records differently each time. A record's key, a stream value's producer and count, and
the start and end of a workflow are the same in every run of a program that follows from its records.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from dbosflow._runtime.runs.entries import Close, Record, Values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.journal.batch import Batch, Slice
    from dbosflow._runtime.runs.entries import Start

START = "start"
"""The key of a workflow's start, as a crash point. No record has it: theirs hold a ``#``."""
END = "end"
"""The key of a workflow's end, as a crash point."""

When = Literal["before", "after"]
"""Before the statement is sent, or after it was committed and before anybody was notified."""
WHEN: tuple[When, When] = ("before", "after")


@dataclass(frozen=True, slots=True)
class DurableOperation:
    """Something that a workflow makes durable."""

    workflow_id: str
    key: str
    """A record's key, or ``START``, or ``END``, or a stream's key."""
    producer: str | None = None
    """Of a stream value: who wrote it."""
    number: int | None = None
    """Of a stream value: how many its producer had written to the stream before. ``None``: the stream's close."""

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
    """A crash: at which operation, and on which side of its commit."""

    operation: DurableOperation
    when: When

    def __str__(self) -> str:
        if self.when == "before":
            return f"a crash before the statement with {self.operation} was sent"
        return f"a crash after {self.operation} was committed, before the answer came"


def starts(batch: Batch[Run]) -> list[Start]:
    """The starts of a batch: of workflows that a program starts, and of children."""
    children = (record.start for part in batch.slices for record in part.records if record.start is not None)
    return [*batch.starts, *children]


def operations(batch: Batch[Run]) -> Iterator[DurableOperation]:
    """What a batch makes durable, in its order. What the engine adds, such as rollbacks, is none of its own."""
    for start in batch.starts:
        yield DurableOperation(start.workflow_id, START)
    for part in batch.slices:
        yield from _of_slice(part)


def holds(batch: Batch[Run], operation: DurableOperation, name_of: Callable[[str], str]) -> bool:
    """Whether a batch makes the operation durable; ``name_of`` gives the id by which it names a workflow."""
    if operation.key == START and operation.producer is None:
        return any(name_of(start.workflow_id) == operation.workflow_id for start in starts(batch))
    return any(
        _matches(replace(found, workflow_id=operation.workflow_id), operation, part)
        for part in batch.slices
        if name_of(part.run.workflow_id) == operation.workflow_id
        for found in _of_slice(part)
    )


def values(part: Slice[Run]) -> Iterator[Values]:
    """The stream values of a slice."""
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


def _of_slice(part: Slice[Run]) -> Iterator[DurableOperation]:
    workflow_id = part.run.workflow_id
    for entry in part.entries:
        if isinstance(entry, Record):
            yield DurableOperation(workflow_id, entry.key)
        elif isinstance(entry, Values):
            yield DurableOperation(workflow_id, entry.key, entry.producer, entry.producer_seq)
        elif isinstance(entry, Close):
            yield DurableOperation(workflow_id, entry.key, entry.producer)
    if part.ending is not None:
        yield DurableOperation(workflow_id, END)
