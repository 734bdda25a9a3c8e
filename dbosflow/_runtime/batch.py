"""A batch in the making: slices of runs, with their sequence numbers, turns and offsets given at the last moment.

Offsets come from the last *acknowledged* tail, so a block starts where its writer has seen the stream end; ``seq`` and
``turn`` are the run's own counters. A slice keeps what it assumed, to be acknowledged or dropped as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dbosflow import serde
from dbosflow._runtime.entries import Close, Ending, Record, Values
from dbosflow._store.batch import BatchRows
from dbosflow._store.notify import queue_topic, stream_topic, workflow_topic
from dbosflow.types import FrameKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dbosflow._runtime.entries import Entry, Start
    from dbosflow._runtime.run import Run


@dataclass(slots=True, eq=False)
class Slice:
    """What one run has in one batch."""

    run: Run
    entries: list[Entry]
    records: list[Record] = field(default_factory=list)
    ending: Ending | None = None
    blocks: list[tuple[str, int, int, FrameKind, str | None, str, int, str | None]] = field(default_factory=list)
    """Key, offset, count, kind, values, producer, producer_seq, attempt."""
    tails: dict[str, int] = field(default_factory=dict)
    """The tail of each stream that it writes to, after it."""

    def __post_init__(self) -> None:
        for entry in self.entries:
            if isinstance(entry, Record):
                self.records.append(entry)
            elif isinstance(entry, Values):
                text = f"[{','.join(entry.texts)}]"
                self._block(entry, len(entry.texts), FrameKind.VALUES, text)
            elif isinstance(entry, Close):
                self._block(entry, 1, FrameKind.COMPLETE, None)
            else:
                self.ending = entry
        if self.ending is not None and self.ending.status.ended:
            self._close_streams(self.ending)

    def _block(self, entry: Values | Close, count: int, kind: FrameKind, values: str | None) -> None:
        self._append(
            entry.key,
            count,
            kind,
            values,
            producer=entry.producer,
            producer_seq=entry.producer_seq,
            attempt=entry.attempt,
        )

    def _close_streams(self, ending: Ending) -> None:
        """Every stream that the workflow leaves open ends with it, in the same statement."""
        error = ending.error and serde.brief_error(ending.error)
        for key, stream in self.run.streams.items():
            if not stream.closed:
                self._append(key, 1, ending.frame, error)

    def _append(
        self,
        key: str,
        count: int,
        kind: FrameKind,
        values: str | None,
        *,
        producer: str = "",
        producer_seq: int = 0,
        attempt: str | None = None,
    ) -> None:
        offset = self.tails.get(key, self.run.streams[key].tail)
        self.blocks.append((key, offset, count, kind, values, producer, producer_seq, attempt))
        self.tails[key] = offset + count

    def add_to(self, rows: BatchRows) -> None:
        """Adds its rows to a batch."""
        run = self.run
        workflow_id, epoch = run.workflow_id, run.epoch
        rows.runs.append((workflow_id, epoch))
        rows.starts.extend(start_row(record.start) for record in self.records if record.start is not None)
        for position, record in enumerate(self.records):
            rows.records.append(
                (
                    *(workflow_id, record.key, record.kind, epoch, run.seq + position, run.turn, record.attempt),
                    *(record.output, record.error, record.child_id, record.delay, record.elapsed),
                )
            )
        for key in self.tails:
            rows.tails.append((workflow_id, key, run.streams[key].tail))
        for key, offset, count, kind, values, producer, producer_seq, attempt in self.blocks:
            size = len(values or "")
            rows.blocks.append(
                (workflow_id, key, offset, count, kind, values, size, producer, producer_seq, attempt, epoch)
            )
        if self.ending is not None:
            rows.ends.append((workflow_id, epoch, self.ending.status, self.ending.output, self.ending.error))

    def acknowledged(self, started: set[str]) -> None:
        """It is durable: its run goes on, and its children begin; their ids are taken out of ``started``."""
        run = self.run
        for record in self.records:
            if record.start is not None:
                record.start.decided(take_out(started, record.start.workflow_id))
        if self.records:
            run.seq += len(self.records)
            run.turn += 1
        for key, tail in self.tails.items():
            run.streams[key].tail = tail
        run.committed(self.entries)

    def topics(self) -> Iterable[str]:
        """Who has news when it is durable."""
        for key in self.tails:
            yield stream_topic(self.run.workflow_id, key)
        for record in self.records:
            if record.start is not None and not record.start.owned:
                yield queue_topic(record.start.queue)
        if self.ending is not None:
            yield workflow_topic(self.run.workflow_id)


def take_out(started: set[str], workflow_id: str) -> bool:
    """Whether the id is among those that the statement inserted; once, though it may stand in it twice."""
    if workflow_id not in started:
        return False
    started.remove(workflow_id)
    return True


def start_row(start: Start) -> tuple[Any, ...]:
    """A start as a row of the statement."""
    return (
        *(start.workflow_id, start.name, start.queue, start.priority, start.input),
        *(start.parent_id, start.parent_key, start.owned),
    )


@dataclass(slots=True, eq=False)
class Batch:
    """One statement: slices of runs, and starts. ``sent`` counts how often it may have arrived."""

    slices: list[Slice]
    starts: list[Start]
    sent: int = 0

    @property
    def empty(self) -> bool:
        """Whether nothing is left in it."""
        return not self.slices and not self.starts

    def rows(self) -> BatchRows:
        """The rows of the statement, the same at each sending."""
        rows = BatchRows()
        for part in self.slices:
            part.add_to(rows)
        rows.starts.extend(map(start_row, self.starts))
        return rows

    def without(self, runs: set[Run]) -> Batch:
        """The batch without the slices of these runs. The whole one may have arrived all the same."""
        return Batch([part for part in self.slices if part.run not in runs], self.starts, self.sent)

    def given_up(self) -> set[Run]:
        """Runs that were stopped meanwhile, to reload or because they are owned elsewhere; an end is written anyhow."""
        return {part.run for part in self.slices if part.run.stopping is not None and part.ending is None}

    def split(self) -> Sequence[Batch]:
        """One batch for each slice and each start, to find the one that the database refuses."""
        return [Batch([part], []) for part in self.slices] + [Batch([], [start]) for start in self.starts]
