"""The streams of one run, as their owner knows them: which producer wrote what, and what may follow.

A producer's writes are counted. Those durable from an earlier run are skipped by count, the rest is appended at the
tail. The object is made with the run's first write, or from its history: most runs never write to a stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbosflow import serde
from dbosflow._records.keys import shown
from dbosflow._records.producers import is_of_step, of_dead_letters
from dbosflow._runtime.runs.checksums import NOTHING, Repeated
from dbosflow._runtime.runs.entries import AttemptRollback, Close, Values
from dbosflow._runtime.streams.limits import Limits
from dbosflow._runtime.streams.state import StreamState
from dbosflow._runtime.streams.uncommitted import Uncommitted
from dbosflow._store.carried import StreamPlace
from dbosflow.errors import StreamClosedError, StreamInputError

if TYPE_CHECKING:
    from collections.abc import Collection
    from concurrent.futures import Future

    from dbosflow._runtime.replay.replaying_run import ReplayingRun
    from dbosflow._runtime.runs.producers import Producer
    from dbosflow._runtime.streams.frames import Frames
    from dbosflow.errors import StreamError
    from dbosflow.types import FrameKind


class RunStreams:
    """What one run writes to its streams. Filled by the thread that runs the run's code, under the run's lock."""

    __slots__ = (
        *("_limits", "_repeated", "_run", "_settings", "_written", "blocks", "by_key", "checksums", "findings"),
        "uncommitted",
    )

    def __init__(self, run: ReplayingRun) -> None:
        history = run.history
        self._run = run
        self._settings = run.settings
        self.by_key = {
            key: StreamState(
                tail, closed=key in history.closed, values=history.values.get(key, 0), size=history.bytes.get(key, 0)
            )
            for key, tail in history.tails.items()
        }
        self.uncommitted = Uncommitted(history.uncommitted)
        self.blocks = 0
        """How many blocks the run has made durable."""
        self._limits = Limits(run.workflow_id, self._settings, history)
        self._written: dict[tuple[str, str], int] = {}
        self.checksums: dict[tuple[str, str], int] = {}
        """The checksum of what each producer has made durable, in this pass and before."""
        self.findings: tuple[Future[None], ...] = ()
        """Lookups about changed values, which go on record, or into the run's error, before the run ends."""
        self._repeated: dict[tuple[str, str], Repeated] = {}
        """Values that were written again, and not yet compared with the stored ones."""

    @property
    def workflow_id(self) -> str:
        """The id of the workflow that owns the streams."""
        return self._run.workflow_id

    @property
    def epoch(self) -> int:
        """The epoch in which they are written."""
        return self._run.epoch

    @property
    def inputs(self) -> Collection[str]:
        """The keys of the streams that outside writers write."""
        return self._run.inputs

    def write(self, key: str, text: str, producer: Producer) -> None:
        """Buffers one value, unless the producer has the value durable from an earlier run.

        The count comes before the check for closed: in a replay the close may be known before the writes that preceded
        it are repeated. It also comes before the limits, which durable values have passed. A refusal that is on record
        comes first: the value that is durable at that count was written after the refusal.
        """
        run, name, size = self._run, producer.name, serde.size_of(text) + 1
        too_early = None
        with run.buffer.lock:
            run.check_may_write(producer.attempt)
            self.check_own(key)
            count = self._written.get((key, name), 0)
            if self._limits.any_recorded and (recorded := self._limits.recorded(key, name, count)) is not None:
                raise recorded
            durable = run.history.produced.get((key, name), 0)
            if count >= durable:
                stream = self._stream_for(key, producer, size)
                too_early = self._ahead_of(producer)
                if too_early is None:
                    self._written[key, name] = count + 1
                    stream.written(size)
                    values = self._open_values(key, stream, producer, count)
                    values.texts.append(text)
                    values.size += size
                    run.buffer.size += size
        if too_early is not None:
            raise run.disagree(f"writes another value to stream {key!r}", shown(too_early), too_early)
        if count >= durable:
            run.environment.submit(run)
        else:
            self._repeat(key, text, name, count, durable)

    def _stream_for(self, key: str, producer: Producer, size: int) -> StreamState:
        """The stream, if it takes a new value of that size; if not, raises why, and puts the refusal on record."""
        stream = self.stream_of(key)
        if stream.closed:
            stream.is_used = True
            error = self.closed_error(key)
            if stream.closed_by_step:
                self._refuse(key, producer, error)
            raise error
        refusal = self._limits.refusal(key, stream.values, stream.bytes, size - 1) if self._limited(size) else None
        if refusal is not None:
            self._refuse(key, producer, refusal)
            raise refusal
        return stream

    def _ahead_of(self, producer: Producer) -> str | None:
        """The next operation on record for a branch: what the branch wrote to a stream before it is durable, too.

        So a new value there comes from other code. If it were written, it would be in the way of the old code once that
        is put back. With a single branch, this holds for any record left: all were made behind this point. In front of
        records that a fork has copied it does not hold: values that were compacted with later ones are written again.
        """
        order = self._run.recorded_order
        if order is None or producer.attempt is not None:
            return None
        ahead = order.next_of(producer.name) or (order.first_left if self._run.sequencer is None else None)
        return None if ahead is None or self._run.history.is_copied(order.record_of(ahead)) else ahead

    def _repeat(self, key: str, text: str, name: str, count: int, durable: int) -> None:
        """Skips a value that is durable, and compares what the producer has written with what it had written before."""
        run = self._run
        self._written[key, name] = count + 1
        run.environment.on_skipped(run, key, name, count, text)
        recorded = run.history.checksums.get((key, name))
        if recorded is None:
            return
        repeated = self._repeated.get((key, name))
        if repeated is None:
            repeated = self._repeated[key, name] = Repeated(key, name)
        repeated.add(text)
        if count + 1 == durable:
            del self._repeated[key, name]
            if not repeated.agrees_to(durable, recorded):
                run.environment.on_changed(run, repeated)

    def check_all_repeated(self) -> None:
        """The body has ended: checks that everything on record was written again, or reports it as changed."""
        run, body = self._run, self._run.root.producer.name
        for (key, name), recorded in run.history.checksums.items():
            left = run.history.produced[key, name] - self.count(key, name)
            if name == body and recorded is not None and left > 0:
                run.environment.on_changed(run, self._repeated.pop((key, name), Repeated(key, name)))

    def checksum(self, key: str, producer: str) -> int | None:
        """The checksum of the producer's values in the stream; ``None`` where older code has written some of them."""
        place = (key, producer)
        if place in self.checksums:
            return self.checksums[place]
        history = self._run.history
        return history.checksums.get(place) if history.produced.get(place) else NOTHING

    def close(self, key: str, producer: Producer, kind: FrameKind, payload: str | None) -> None:
        """Buffers the end of a stream. Closing a closed stream does nothing."""
        run = self._run
        with run.buffer.lock:
            run.check_may_write(producer.attempt)
            self.check_own(key)
            stream = self.stream_of(key)
            if stream.closed:
                stream.is_used = True
                return
            too_early = None if stream.repeats else self._ahead_of(producer)
            if too_early is None:
                stream.close(by_step=producer.attempt is not None)
                name = producer.name
                run.buffer.push(Close(key, name, self._written.get((key, name), 0), producer.label, kind, payload))
        if too_early is not None:
            raise run.disagree(f"closes stream {key!r}", shown(too_early), too_early)
        run.environment.submit(run)

    def dead_letter(self, key: str, text: str, loop_key: str) -> Values:
        """The dead letter of an item, to be written with the item's record. The caller holds the lock."""
        run = self._run
        self.check_own(key)
        if self.stream_of(key).closed:
            msg = f"stream {key!r} of workflow {run.workflow_id!r}, for dead letters, is closed"
            raise StreamClosedError(run.workflow_id, key, msg)
        stream, size = self.stream_of(key), serde.size_of(text) + 1
        refusal = self._limits.refusal(key, stream.values, stream.bytes, size - 1) if self._limited(size) else None
        if refusal is not None:
            raise refusal
        stream.written(size)
        producer = of_dead_letters(loop_key)
        place = (key, producer)
        count = self._written.setdefault(place, run.history.produced.get(place, 0))
        self._written[place] = count + 1
        return Values(key, producer, count, None, [text])

    def resume_producer(self, key: str, producer: str) -> None:
        """Lets a producer continue behind its durable values, instead of repeating them."""
        run = self._run
        with run.buffer.lock:
            self._written.setdefault((key, producer), run.history.produced.get((key, producer), 0))

    def begin_attempt(self, step_key: str) -> None:
        """Rolls back the uncommitted values of earlier attempts, whose owner died during them."""
        if not self.uncommitted:
            return
        run = self._run
        with run.buffer.lock:
            if not self.uncommitted.producers(step_key) or run.stopping is not None:
                return
            run.buffer.push(AttemptRollback(step_key))
        run.environment.submit(run)

    def begin_blocks(self) -> None:
        """Lets the next values begin other blocks, behind what is buffered now. The caller holds the lock."""
        for stream in self.by_key.values():
            stream.open_values = None

    def acknowledged(self, frames: Frames) -> None:
        """What a slice has made of the streams is durable."""
        self.blocks += len(frames.blocks)
        with self._run.buffer.lock:
            for key, tail in frames.tails.items():
                self.by_key[key].advance(tail)
        for key in frames.ended:
            self.by_key[key].end()
        for key in frames.reopened:
            self.by_key[key].reopen()
        self.uncommitted = frames.uncommitted
        self.checksums.update(frames.checksums)

    def places(self, frames: Frames | None) -> tuple[dict[str, StreamPlace], dict[str, StreamPlace]]:
        """Where each open stream ends behind a slice; and each closed one that this iteration has used."""
        tails = {} if frames is None else frames.tails
        ended = set() if frames is None else frames.ended
        opened, closed = dict[str, StreamPlace](), dict[str, StreamPlace]()
        for key, stream in self.by_key.items():
            place = StreamPlace(tails.get(key, stream.tail), stream.values, stream.bytes)
            if not stream.ended and key not in ended:
                opened[key] = place
            elif stream.is_used or key not in self._run.history.closed:
                closed[key] = place
        return opened, closed

    def new_values_of_body(self) -> int:
        """How many values the run's own code, and not a step's, has written that no earlier run wrote."""
        produced = self._run.history.produced
        with self._run.buffer.lock:
            return sum(
                max(count - produced.get(place, 0), 0)
                for place, count in self._written.items()
                if not is_of_step(place[1])
            )

    def count(self, key: str, producer: str) -> int:
        """How many values the producer has written to the stream in this pass."""
        return self._written.get((key, producer), 0)

    def needs_room(self, key: str, producer: Producer) -> bool:
        """Whether the producer's next write must wait for room: the buffer is full, and the value would go into it."""
        run = self._run
        if run.buffer.has_room or run.cancelled or run.stopping is not None:
            return False
        stream = self.by_key.get(key)
        name = producer.name
        durable = self._written.get((key, name), 0) < run.history.produced.get((key, name), 0)
        return not durable and not (stream is not None and stream.closed)

    def refuse_for_room(self, key: str, producer: Producer) -> None:
        """Raises that the producer's next value got no room in time, unless the run is over."""
        run = self._run
        with run.buffer.lock:
            run.check_may_write(producer.attempt)
            error = self._limits.back_pressure(key)
            self._refuse(key, producer, error)
        raise error

    def takes(self, key: str) -> bool:
        """Whether a value for the stream ``key`` would be taken at once."""
        run, stream = self._run, self.by_key.get(key)
        return run.may_write and run.buffer.has_room and not (stream is not None and stream.closed)

    def count_transaction(self, producer: str, key: str, values: int, size: int) -> None:
        """Counts the values that a transaction has committed. The caller holds the lock."""
        stream = self.stream_of(key)
        stream.values += values
        stream.bytes += size
        self._written[key, producer] = values

    def refusal(self, key: str, size: int, values: int, written: int) -> StreamError | None:
        """Why a stream takes no value of ``size`` bytes behind so many that it has not got yet; ``None`` if it does."""
        if not self._limited(size):
            return None
        stream = self.stream_of(key)
        return self._limits.refusal(key, stream.values + values, stream.bytes + written, size - 1)

    def closed_error(self, key: str) -> StreamClosedError:
        """The error of a write behind the close of a stream."""
        workflow_id = self._run.workflow_id
        msg = f"stream {key!r} of workflow {workflow_id!r} is closed; nothing can be written after that"
        return StreamClosedError(workflow_id, key, msg)

    def _limited(self, size: int) -> bool:
        settings = self._settings
        return size > settings.value_bytes or settings.stream_values is not None or settings.stream_bytes is not None

    def _refuse(self, key: str, producer: Producer, error: StreamError) -> None:
        """Puts a refusal that the body gets on record, ahead of the body's next operation."""
        if producer.attempt is None:
            self._run.buffer.push(self._limits.record(key, producer.name, self.count(key, producer.name), error))

    def check_own(self, key: str) -> None:
        """Raises ``StreamInputError`` for a stream that outside writers write."""
        if key in self._run.inputs:
            workflow_id = self._run.workflow_id
            msg = (
                f"stream {key!r} is an input of workflow {workflow_id!r}: it is written and closed from outside, "
                "with engine.write_stream(...). The workflow's own values need another key"
            )
            raise StreamInputError(workflow_id, key, msg)

    def stream_of(self, key: str) -> StreamState:
        """The state of a stream. The caller holds the lock."""
        stream = self.by_key.get(key)
        if stream is None:
            stream = self.by_key[key] = StreamState()
        return stream

    def _open_values(self, key: str, stream: StreamState, producer: Producer, count: int) -> Values:
        """The block that the producer's next value joins: the stream's open one, or a new one in the buffer."""
        values, settings = stream.open_values, self._settings
        if (
            values is not None
            and values.is_open
            and values.producer == producer.name
            and len(values.texts) < settings.block_values
            and values.size < settings.block_bytes
        ):
            return values
        values = stream.open_values = Values(key, producer.name, count, producer.label)
        self._run.buffer.push(values)
        return values
