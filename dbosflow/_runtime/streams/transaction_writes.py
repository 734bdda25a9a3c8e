"""What the function of a transaction writes to streams: kept apart until the last statement, which commits it.

Nothing of it is seen before, and nothing of a transaction that is rolled back ever was: so it needs no rollback frame,
and its blocks name no attempt. It does not go into the run's buffer, from which the journal takes nothing while the run
commits: a write that waited there for room would wait for itself. It has a bound of its own, and waits for nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbosflow import serde
from dbosflow._runtime.runs.entries import Close, Values
from dbosflow.errors import StreamBackPressureError, StreamError

if TYPE_CHECKING:
    from dbosflow._runtime.replay.replaying_run import ReplayingRun
    from dbosflow._runtime.runs.producers import Producer
    from dbosflow._runtime.streams.writes import RunStreams
    from dbosflow.types import FrameKind


class TransactionWrites:
    """The writes of one attempt. Filled by the attempt's thread or task, read when its function is over."""

    def __init__(self, run: ReplayingRun, streams: RunStreams, producer: Producer) -> None:
        self._run = run
        self._streams = streams
        self._producer = producer
        self._texts: dict[str, list[str]] = {}
        self._sizes: dict[str, int] = {}
        self._open: dict[str, Values] = {}
        self._closes: dict[str, Close] = {}
        self.entries: list[Values | Close] = []
        """The blocks and closes, in order."""
        self.size = 0
        """Their rough size, in bytes."""

    def write(self, key: str, text: str) -> None:
        """Adds a value.

        Raises:
            StreamClosedError: the stream is closed, by this function or before.
            StreamFullError, StreamValueTooLargeError: the limits of streams.
            StreamBackPressureError: the function has written as much as a transaction may.
        """
        size = serde.size_of(text) + 1
        texts = self._texts.setdefault(key, [])
        with self._run.buffer.lock:
            self._check_may_write(key)
            if key in self._closes or self._streams.stream_of(key).closed:
                raise self._streams.closed_error(key)
            refusal = self._streams.refusal(key, size, len(texts), self._sizes.get(key, 0))
        if refusal is not None:
            raise refusal
        if self.size + size > self._run.settings.buffer_bytes:
            raise self._too_much(key)
        texts.append(text)
        self._sizes[key] = self._sizes.get(key, 0) + size
        block = self._block(key)
        block.texts.append(text)
        block.size += size
        self.size += size

    def _check_may_write(self, key: str) -> None:
        self._run.check_may_write(self._producer.attempt)
        self._streams.check_own(key)

    def _too_much(self, key: str) -> StreamBackPressureError:
        workflow_id, most = self._run.workflow_id, self._run.settings.buffer_bytes
        msg = (
            f"a transaction of workflow {workflow_id!r} would write more than buffer_bytes ({most}) to streams: its "
            "values wait in memory for the commit. Write them in an ordinary step, or raise buffer_bytes"
        )
        return StreamBackPressureError(workflow_id, key, msg)

    def _block(self, key: str) -> Values:
        settings, block = self._run.settings, self._open.get(key)
        if block is not None and len(block.texts) < settings.block_values and block.size < settings.block_bytes:
            return block
        block = self._open[key] = Values(key, self._producer.name, self.count(key) - 1, None)
        self.entries.append(block)
        self.size += block.size
        return block

    def close(self, key: str, kind: FrameKind, payload: str | None) -> None:
        """Ends a stream, with the commit. Closing a closed stream does nothing."""
        with self._run.buffer.lock:
            self._check_may_write(key)
            if key in self._closes or self._streams.stream_of(key).closed:
                return
        end = Close(key, self._producer.name, self.count(key), None, kind, payload)
        self._closes[key] = end
        self.entries.append(end)
        self.size += end.size

    def count(self, key: str) -> int:
        """How many values it has written to a stream."""
        return len(self._texts.get(key, ()))

    def texts(self, key: str) -> list[str]:
        """The values that it has written to a stream, as JSON."""
        return list(self._texts.get(key, ()))

    def begin_commit(self) -> None:
        """Closes for others what it closes: what they wrote before goes out before the commit.

        Raises:
            StreamClosedError: another branch has closed a stream meanwhile.
            StreamError: a stream that is to be closed has values of a step that is under way.
        """
        streams = self._streams
        with self._run.buffer.lock:
            for key in (*(key for key, texts in self._texts.items() if texts), *self._closes):
                if streams.stream_of(key).closed:
                    raise streams.closed_error(key)
            for key in self._closes:
                if streams.uncommitted.holds(key):
                    raise self._held(key)
            for key in self._closes:
                streams.stream_of(key).close(by_step=True)

    def _held(self, key: str) -> StreamError:
        workflow_id = self._run.workflow_id
        msg = (
            f"a transaction cannot close stream {key!r} of workflow {workflow_id!r} while a step that has written to "
            "it is under way: close it when that step is over"
        )
        return StreamError(workflow_id, key, msg)

    def begin_statement(self) -> None:
        """Checks again, when nothing of the run is under way any more, that the closes can be final."""
        with self._run.buffer.lock:
            for key in self._closes:
                if self._streams.uncommitted.holds(key):
                    raise self._held(key)

    def committed(self) -> None:
        """What it has written is durable."""
        with self._run.buffer.lock:
            for key, texts in self._texts.items():
                self._streams.count_transaction(self._producer.name, key, len(texts), self._sizes.get(key, 0))

    def withdraw(self) -> None:
        """It is rolled back: what it was to close stays open."""
        with self._run.buffer.lock:
            for key in self._closes:
                self._streams.stream_of(key).reopen()
