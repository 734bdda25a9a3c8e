"""What one slice of a batch makes of its run's streams: blocks with their offsets, rollbacks, ends.

Offsets come from the last *acknowledged* tail, so a block starts where its writer has seen the stream end. A slice
works on a copy of what is uncommitted, which becomes the run's when the slice is acknowledged.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Protocol

from dbosflow import serde
from dbosflow._records.keys import attempt_of, operation_of
from dbosflow._records.kinds import RecordKind
from dbosflow._records.producers import RESUMED, is_resumed
from dbosflow._records.spaces import is_reserved
from dbosflow._runtime.runs.checksums import checksum
from dbosflow._store.batch_rows import BlockRow, InputRow, TailRow
from dbosflow.failures import brief_error
from dbosflow.types import FrameKind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from dbosflow._runtime.runs.entries import Close, Ending, Record, Values
    from dbosflow._runtime.streams.state import StreamState
    from dbosflow._runtime.streams.uncommitted import Uncommitted


class OwnedStreams(Protocol):
    """The streams that frames are made for: see ``writes``."""

    @property
    def workflow_id(self) -> str:
        """The id of the workflow that owns the streams."""

    @property
    def epoch(self) -> int:
        """The epoch in which they are written."""

    @property
    def inputs(self) -> Collection[str]:
        """The keys of the streams that outside writers write."""

    @property
    def by_key(self) -> Mapping[str, StreamState]:
        """Each stream that the workflow has written to."""

    @property
    def uncommitted(self) -> Uncommitted:
        """The writes that may still be rolled back."""

    def checksum(self, key: str, producer: str) -> int | None:
        """The checksum of the producer's values in the stream; ``None`` where older code has written some of them."""


class Frames:
    """The frames that a slice appends to the streams of its run."""

    __slots__ = (
        *("_last_turn", "_streams", "_turn", "assumed", "blocks", "checksums", "committed", "ended", "inputs"),
        *("reopened", "tails", "uncommitted"),
    )

    def __init__(self, streams: OwnedStreams, turn: int, last_turn: int | None = None) -> None:
        self._streams = streams
        self._last_turn = turn if last_turn is None else last_turn
        """The turn of the slice's last record; of the one before the slice, if it has none."""
        self._turn = min(turn, self._last_turn)
        self.blocks: list[BlockRow] = []
        self.assumed: list[TailRow] = []
        """The acknowledged tail of each of those streams: the statement writes nothing where it is another one."""
        self.tails: dict[str, int] = {}
        """The tail, after the slice, of each stream that the slice writes to."""
        self.checksums: dict[tuple[str, str], int] = {}
        """The checksum, after the slice, of each producer's values in a stream."""
        self.committed: set[str] = set()
        """Streams whose values, written by an attempt, are committed by the slice's records."""
        self.ended: set[str] = set()
        self.inputs: list[InputRow] = []
        """The inputs that end with the workflow, at offsets that only the statement can know."""
        self.reopened: set[str] = set()
        self.uncommitted = streams.uncommitted.copy()

    def begin_turn(self) -> None:
        """The slice has passed the end of a turn: what follows belongs to the next one, if that has any records."""
        self._turn = min(self._turn + 1, self._last_turn)

    def values(self, entry: Values) -> None:
        """Assigns offsets to values."""
        text = ",".join(entry.texts)
        offset = self._append(
            entry.key,
            len(entry.texts),
            FrameKind.VALUES,
            f"[{text}]",
            producer=entry.producer,
            producer_seq=entry.producer_seq,
            attempt=entry.attempt,
            checksum=self._checksum(entry, text),
        )
        if entry.attempt is not None:
            self.uncommitted.wrote(entry.producer, entry.key, offset, len(entry.texts))

    def _checksum(self, entry: Values, text: str) -> int | None:
        """The checksum of all values of the producer up to these; unknown if older code has written some of them."""
        place = (entry.key, entry.producer)
        before = self.checksums.get(place)
        if before is None:
            before = self._streams.checksum(*place)
            if before is None:
                return None
        self.checksums[place] = found = checksum(text, before)
        return found

    def close(self, close: Close) -> None:
        """Ends a stream; if a part of it is uncommitted, holds the end until that is committed or rolled back."""
        if close.attempt is not None:
            self.uncommitted.wrote(close.producer, close.key, 0, 0)
        if self.uncommitted.holds(close.key):
            self.uncommitted.held_closes[close.key] = close
        else:
            self._append_close(close)

    def commit_or_roll_back(self, record: Record) -> None:
        """Commits the attempts that the record names as successful, and rolls back those that it ends otherwise."""
        uncommitted = self.uncommitted
        if not uncommitted:
            return
        if record.kind is RecordKind.ATTEMPT:
            self._roll_back([record.key])
        elif record.kind is RecordKind.GIVEN_UP:
            operation = operation_of(record.key)
            self._roll_back([*uncommitted.producers(operation), *uncommitted.items_of(operation)])
        elif record.kind is RecordKind.FOR_EACH:  # items that are not on record never will be
            self._roll_back(uncommitted.items_of(record.key))
        elif record.kind is RecordKind.STEP:
            for producer in uncommitted.producers(record.key):
                if record.error is None and attempt_of(producer) in {record.attempt, RESUMED}:
                    for key, _ in uncommitted.pop(producer):
                        self.committed.add(key)
                        self._release_close(key)
                else:
                    self._roll_back([producer])

    def roll_back_attempts(self, step_key: str) -> None:
        """Rolls back the uncommitted values of earlier attempts of a step, before a new one begins."""
        self._roll_back(one for one in self.uncommitted.producers(step_key) if not is_resumed(one))

    def _roll_back(self, producers: Iterable[str]) -> None:
        for producer in producers:
            attempt = attempt_of(producer)
            for key, ranges in self.uncommitted.pop(producer):
                if ranges:
                    text = json.dumps(ranges)
                    self._append(key, 1, FrameKind.ROLLBACK, text, producer=producer, attempt=attempt)
                held = self.uncommitted.held_closes.get(key)
                if held is not None and held.attempt is not None and held.producer == producer:
                    del self.uncommitted.held_closes[key]
                    self.reopened.add(key)
                self._release_close(key)

    def _release_close(self, key: str) -> None:
        if key in self.uncommitted.held_closes and not self.uncommitted.holds(key):
            self._append_close(self.uncommitted.held_closes.pop(key))

    def _append_close(self, close: Close) -> None:
        self._append(close.key, 1, close.kind, close.payload, producer=close.producer, producer_seq=close.producer_seq)

    def roll_back_all(self) -> None:
        """Rolls back what is uncommitted."""
        self._roll_back(self.uncommitted.producers())

    def end(self, ending: Ending) -> None:
        """Rolls back what is uncommitted; then ends every stream that the workflow leaves open."""
        self.roll_back_all()
        error = ending.error and brief_error(ending.error)
        streams = self._streams
        for key, stream in streams.by_key.items():
            if ending.refusals > 1 and not stream.tail:
                continue  # its key may be what was refused
            if not stream.ended and key not in self.ended and not is_reserved(key):
                self._append(key, 1, ending.frame, error)
        size = serde.size_of(error or "")
        self.inputs = [
            InputRow(streams.workflow_id, key, ending.frame, error, size, streams.epoch) for key in streams.inputs
        ]

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
        checksum: int | None = None,
    ) -> int:
        if kind.terminal:
            self.ended.add(key)
        workflow_id, epoch, offset = self._streams.workflow_id, self._streams.epoch, self.tails.get(key)
        if offset is None:
            offset = self._streams.by_key[key].tail
            self.assumed.append(TailRow(workflow_id, key, offset))
        self.blocks.append(
            BlockRow(
                workflow_id,
                key,
                offset,
                count,
                kind,
                values,
                serde.size_of(values or ""),
                producer,
                producer_seq,
                attempt,
                epoch,
                checksum,
                self._turn,
            )
        )
        self.tails[key] = offset + count
        return offset

    def touched(self) -> Iterable[str]:
        """The streams whose readers have news when the slice is durable."""
        return self.committed.union(self.tails)
