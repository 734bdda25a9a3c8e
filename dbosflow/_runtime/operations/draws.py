"""Draws: the time, ids and random numbers of a body. Each is on record, so a replay gets the same one.

A draw waits for nothing, and sends nothing: its record stays in the run's buffer until the next entry goes to the
journal, or the run has only waited for so long that it is to leave memory, or the engine closes. Everything that the
run writes goes in the order of the buffer, so nothing that follows from a draw is durable before it. What leaves the
process by another way, as the body of a step does, waits for the draws first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.execution.recorded_values import load
from dbosflow._runtime.operations.operation import Operation
from dbosflow._runtime.runs.entries import Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow._runtime.execution.run import RunBranch
    from dbosflow.serde import Codec

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Draw(Generic[T]):
    """A kind of draw."""

    name: str
    """The name in keys of records."""
    codec: Codec[T]


def drawn(branch: RunBranch, draw: Draw[T], fresh: Callable[[], T]) -> T:
    """The branch's next draw of that kind: the recorded one, or a ``fresh`` one."""
    run = branch.run
    with Operation(branch, draw.name, f"durable.{draw.name}()") as operation:
        key, record = operation.key, operation.find_record(RecordKind.DRAWN)
        if record is not None:
            return load(run, draw.codec, record.output, f"key {key!r}", record)
        if run.sequencer is None:  # otherwise the record is held back while others replay
            run.check_all_asked(f"asks for {key!r}, which is not on record")
            run.check_may_follow(key)
        text, value = draw.codec.round_trip(fresh())
        kept = run.environment.on_drawn(run, key, text)
        if kept != text:
            text, value = kept, draw.codec.load(kept)
        run.append_ahead(Record(key, RecordKind.DRAWN, output=text))
        return value
