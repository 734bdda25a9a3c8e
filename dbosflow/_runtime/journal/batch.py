"""A batch: what one statement of the journal has, slices of runs and starts, and the rows that it makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from dbosflow._runtime.journal.slice import Slice
from dbosflow._runtime.journal.source import Source
from dbosflow._runtime.runs.entries import Continuation, Suspension
from dbosflow._store.batch_rows import AttributeRow, AwaitRow, BatchRows, ContinueRow, SuspendRow
from dbosflow._store.waiter import by_topic
from dbosflow._store.workflow import keys_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbosflow._runtime.runs.entries import Start
    from dbosflow._runtime.streams.statistics import StreamStatistics
    from dbosflow._store.batch_rows import Row


R = TypeVar("R", bound=Source)


def _suspend(rows: BatchRows, run: Source, suspension: Suspension) -> None:
    rows.suspends.append(SuspendRow(run.workflow_id, run.epoch, suspension.delay))
    awaited = by_topic(run.workflow_id, suspension.targets)
    rows.awaits.extend(AwaitRow(run.workflow_id, topic, *target) for topic, target in awaited.items())


def start_row(start: Start) -> Row:
    """A start as a row of the statement, with the fields of a ``StartRow``."""
    return (
        start.workflow_id,
        start.name,
        start.queue,
        start.priority,
        start.input,
        start.parent_id,
        start.parent_key,
        keys_text(start.inputs),
        start.owned,
    )


def _add_starts(rows: BatchRows, starts: Sequence[Start]) -> None:
    """Adds starts; and of workflows that come whole their ends, records and blocks.

    Of starts of one id only the first is added, which decides for all. What comes with another, or with one whose id a
    run of the batch has, is left out: it could join the rows of others.
    """
    others = {workflow_id for workflow_id, _ in rows.runs}
    added: set[str] = set()
    for start in starts:
        if start.workflow_id in others:
            start.leave_out_end()
        if start.workflow_id in added:
            continue
        added.add(start.workflow_id)
        others.add(start.workflow_id)
        ending = start.outcome
        outcome = None if ending is None else (ending.status, ending.output, ending.error)  # as an OutcomeRow
        rows.add_start(start_row(start), start.options, outcome)
        if start.content is not None:
            rows.first_records += start.content.records
            rows.first_blocks += start.content.blocks


@dataclass(slots=True, eq=False)
class Batch(Generic[R]):
    """One statement: slices of runs, and starts. ``sent`` counts how often it may have arrived."""

    slices: list[Slice[R]]
    starts: list[Start]
    sent: int = 0
    notified: bool = False
    """Whether other processes were notified of it behind it, on its connection."""

    @property
    def empty(self) -> bool:
        """Whether nothing is left in the batch."""
        return not self.slices and not self.starts

    def rows(self) -> BatchRows:
        """The rows of the statement, the same at each sending."""
        rows = BatchRows()
        for part in self.slices:
            run, frames, ending = part.run, part.frames, part.ending
            rows.runs.append((run.workflow_id, run.epoch))
            rows.aware = rows.aware or run.request is not None
            rows.records += part.records
            rows.attributes += [AttributeRow(run.workflow_id, *change) for change in part.attributes.items()]
            if frames is not None:
                rows.tails += frames.assumed
                rows.blocks += frames.blocks
                rows.inputs += frames.inputs
            if isinstance(ending, Suspension):
                _suspend(rows, run, ending)
            elif isinstance(ending, Continuation):
                rows.continues.append(ContinueRow(run.workflow_id, run.epoch, ending.iteration, ending.arguments))
            elif ending is not None:
                rows.ends.append((run.workflow_id, run.epoch, ending.sent_status, ending.output, ending.error))
        if starts := [*(start for part in self.slices for start in part.starts), *self.starts]:
            _add_starts(rows, starts)
        return rows

    def parts(self) -> list[Slice[R]]:
        """All slices, those of workflows that come whole with their starts behind the others."""
        starts = [*self.starts, *(start for part in self.slices for start in part.starts)]
        return [*self.slices, *(start.content for start in starts if isinstance(start.content, Slice))]

    def topics(self) -> list[str]:
        """The topics that have news when the batch is durable."""
        topics = [topic for part in self.slices for topic in part.topics()]
        return topics + [topic for start in self.starts for topic in start.topics()]

    @property
    def is_awaited_elsewhere(self) -> bool:
        """Whether other processes may wait for it: they are notified before those here."""
        return any(part.is_awaited_elsewhere for part in self.slices)

    @property
    def is_lone(self) -> bool:
        """Whether it is one thing that one run does, as far as its waiters see: a value, a child's start, an end."""
        return (
            len(self.slices) == 1 and not self.starts and sum(block.value_count for block in self.slices[0].blocks) <= 1
        )

    def count_in(self, statistics: StreamStatistics, seconds: float) -> None:
        """Counts its blocks, which are durable ``seconds`` after they were gathered."""
        writing = [part for part in self.parts() if part.frames is not None and part.frames.blocks]
        for part in writing:
            part.count_in(statistics)
        if writing:
            statistics.flushed(seconds)

    def without(self, runs: set[R]) -> Batch[R]:
        """The batch without the slices of these runs. The whole batch may have arrived all the same."""
        return Batch([part for part in self.slices if part.run not in runs], self.starts, self.sent)

    def stopped_runs(self) -> set[R]:
        """The runs that were stopped meanwhile. A run's end is written anyhow, unless a new pass takes its place."""
        stopped = (part for part in self.slices if part.run.stopping is not None)
        return {part.run for part in stopped if part.ending is None or part.run.superseded}

    @property
    def closes_inputs(self) -> bool:
        """Whether the batch ends streams that outside writers write, which may come first."""
        return any(part.closes_inputs for part in self.slices)

    def split(self) -> Sequence[Batch[R]]:
        """One batch for each slice and each start, to find the one that the database refuses."""
        return [Batch([part], []) for part in self.slices] + [Batch([], [start]) for start in self.starts]

    def split_off_inputs(self) -> Sequence[Batch[R]]:
        """One batch for each slice that ends inputs, and one for the rest; if there is none, as ``split``."""
        closing = {part.run for part in self.slices if part.closes_inputs}
        rest = self.without(closing)
        if not closing or rest.empty:
            return self.split()
        return [Batch(rest.slices, rest.starts), *(Batch([part], []) for part in self.slices if part.run in closing)]
