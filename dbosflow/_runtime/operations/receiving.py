"""``recv``: the next message on a topic, received once. Its record carries the message, so a replay reads no inbox.

A message that is not of the type is received, too: the record carries it and the error. One whose receiver was
cancelled is not: the cancellation is on record, and the message goes to the next receiver.
"""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from dbosflow._records.keys import GIVEN_UP
from dbosflow._records.kinds import RecordKind
from dbosflow._records.spaces import inbox_key
from dbosflow._runtime.execution.recorded_values import failure, load
from dbosflow._runtime.operations.operation import DurableOperation
from dbosflow._runtime.operations.timed_waits import TimedWait
from dbosflow._runtime.runs.durable_waits import DurableWait, Standing
from dbosflow._runtime.runs.entries import Record
from dbosflow._runtime.runs.offsets import Offsets
from dbosflow._runtime.streams.inbox import Inbox
from dbosflow._store.carried import ReadPlace
from dbosflow._store.waiter import Target
from dbosflow.errors import MessageTimeoutError, SerializationError, ThreadLimitError
from dbosflow.failures import dump_error

if TYPE_CHECKING:
    from dbosflow._runtime.execution.run import Run, RunBranch
    from dbosflow._runtime.streams.inbox import Message
    from dbosflow._store.step import Recorded
    from dbosflow.serde import Codec

_NAME = "recv"
_UNREADABLE = "a message is stored that Python's JSON parser cannot read"


class Received(NamedTuple):
    """A message as the body gets it."""

    value: Any
    offset: int
    error: BaseException | None = None
    """Why the message is not of the type."""


class Taken:
    """The message that an operation has got, and that is not on record yet."""

    __slots__ = ("inbox", "message", "wait")

    def __init__(self) -> None:
        self.inbox: Inbox | None = None
        self.message: Message | None = None
        self.wait: TimedWait | None = None

    def standing(self) -> Standing | str:
        """What the operation waits for now; or that it still looks."""
        inbox, wait = self.inbox, self.wait
        if inbox is None or wait is None or not wait.has_begun:
            return "a page of an inbox"
        if self.message is not None:
            return "a message that has come"
        return Standing((Target(inbox.workflow_id, inbox.key, inbox.unreceived),), due=wait.due)

    def is_on_record(self) -> None:
        """The message is received for good."""
        message, self.message = self.message, None
        if self.inbox is not None and message is not None:
            self.inbox.received(message.offset)

    def give_back(self) -> None:
        """The operation did not come to its end: the next receiver gets the message."""
        if self.inbox is not None and self.message is not None:
            self.inbox.give_back(self.message)


async def receive(branch: RunBranch, topic: str, codec: Codec[Any], seconds: float | None) -> Received:
    """Receives the next message on the topic: the one on record, or waits for a new one, ``seconds`` at most.

    Raises:
        MessageTimeoutError: no message came in time.
    """
    run, taken = branch.run, Taken()
    try:
        async with DurableOperation(branch, RecordKind.RECV, _NAME, f"recv({topic!r})") as operation:
            key = operation.key

            async def live() -> Record:
                return await _received(operation, topic, codec, seconds, taken)

            found = await operation.outcome(live)
            taken.is_on_record()
    except BaseException:
        taken.give_back()  # behind the record of the cancellation, which frees the offset for a replay, too
        raise
    return _result(run, topic, codec, found, key)


async def _received(
    operation: DurableOperation, topic: str, codec: Codec[Any], seconds: float | None, taken: Taken
) -> Record:
    run, key, began = operation.run, operation.key, time.monotonic()
    output, error = None, None
    try:
        wait = DurableWait(taken.standing, key=key)
        await operation.driver.wait(run, _take(run, key, topic, seconds, taken), awaits=run.workflow_id, wait=wait)
    except (MessageTimeoutError, ThreadLimitError) as refused:
        error = dump_error(refused)
    else:
        assert taken.message is not None
        offset, text, _ = taken.message
        output = _envelope(topic, offset, text)
        error = unfit(codec, text)
    return Record(key, RecordKind.RECV, output=output, error=error, elapsed=time.monotonic() - began)


async def _take(run: Run, key: str, topic: str, seconds: float | None, taken: Taken) -> None:
    """Runs on the engine's loop."""
    taken.inbox = inbox = run.inboxes.get(topic) or _open(run, topic)
    before = inbox.removable()
    if before is not None:
        run.engine.remove_received(run.workflow_id, inbox.key, before, inbox.removed)
    what = f"message on topic {topic!r} for workflow {run.workflow_id!r}"
    taken.wait = wait = TimedWait(run, key, seconds, what)
    taken.message = await inbox.take(wait)


def _open(run: Run, topic: str) -> Inbox:
    """The inbox, without what is on record as received. A receiver that was cancelled has received nothing."""
    records = run.history.records
    received = [
        read[0]
        for record in records.values()
        if record.kind == RecordKind.RECV and record.output is not None and record.key + GIVEN_UP not in records
        if (read := _read(record.output))[1] == topic
    ]
    carried = run.history.carried.topics.get(topic, ReadPlace())
    inbox = run.inboxes[topic] = Inbox(run.workflow_id, inbox_key(topic), run.engine.read_page, received, carried)
    return inbox


def _result(run: Run, topic: str, codec: Codec[Any], found: Record | Recorded, key: str) -> Received:
    record = None if isinstance(found, Record) else found
    if found.output is None:
        failed = failure(run, found.error or "{}", f"key {key!r}", record)
        raise failed.exception or MessageTimeoutError(failed.message)
    offset, there, text = _read(found.output)
    if there != topic:
        raise run.disagree(f"receives on topic {topic!r} at key {key!r}", f"a message on topic {there!r}", record)
    if topic not in run.received:
        run.received[topic] = Offsets(run.history.carried.topics.get(topic, ReadPlace()))
    run.received[topic].add(offset)
    if found.error is not None:
        failed = failure(run, found.error, f"key {key!r}", record)
        return Received(None, offset, failed.exception or SerializationError(failed.message))
    return Received(load(run, codec, text, f"key {key!r}", record), offset)


def unfit(codec: Codec[Any], text: str | None) -> str | None:
    """Why a message is not of the type."""
    if text is None:
        return dump_error(SerializationError(_UNREADABLE))
    try:
        codec.load(text)
    except Exception as unfit:  # noqa: BLE001 (the code of a type of the user's may raise anything)
        told = unfit if isinstance(unfit, SerializationError) else SerializationError(f"{codec.what}: {unfit}")
        return dump_error(told)
    return None


_HEADER = re.compile(r'\A(\{"topic": "(?:[^"\\]|\\.)*", "offset": \d+), "value": ', re.DOTALL)


def _envelope(topic: str, offset: int, text: str | None) -> str:
    """What the record holds: the message's own text stays as it is."""
    header = json.dumps({"topic": topic, "offset": offset})
    return f'{header[:-1]}, "value": {"null" if text is None else text}}}'


def _read(output: str) -> tuple[int, str, str]:
    """The offset, topic and text of a record."""
    found = _HEADER.match(output)
    if found is None:  # not ours
        row = json.loads(output)
        return row["offset"], row["topic"], json.dumps(row["value"])
    header = json.loads(f"{found[1]}}}")
    return header["offset"], header["topic"], output[found.end() : -1]
