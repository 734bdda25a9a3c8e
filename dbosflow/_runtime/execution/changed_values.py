"""Stream values that a replay writes otherwise than they are on record: found, logged, and kept for operators.

What is on record stays, so readers notice nothing. A change may be harmless, as a time or a random number in a line
about progress is; or the code has changed, and no program has ever written what the stream now holds. This module
cannot decide which. So a change causes a warning, and blocks the workflow only with the setting for that.

```text
a producer has passed its last durable value, or the body has ended before ──► other checksum
    ──► blocked at once, with that setting ──► the first value that differs ──► log, and a record │ the block's error
```
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextvars import Context
from typing import TYPE_CHECKING, NamedTuple

from dbosflow import serde
from dbosflow._records.keys import changed_key
from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.replay.contradiction import contradiction
from dbosflow._runtime.runs.entries import Record
from dbosflow._store import stream
from dbosflow.errors import DbosflowError

if TYPE_CHECKING:
    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.runs.checksums import Repeated
    from dbosflow.errors import NonDeterminismError

logger = logging.getLogger("dbosflow.replay")


class _Difference(NamedTuple):
    """The first value that differs: its place among its producer's values, the recorded text, and the written one."""

    place: int | None = None
    recorded: str | None = None
    written: str | None = None
    is_missing: bool = False
    """Whether nothing was written there, since the body has ended."""


class ChangedValues:
    """Reports changed values. Called in the thread of the code that writes them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def found(self, run: Run, repeated: Repeated) -> None:
        """Handles a producer whose repeated values are not those on record.

        Raises:
            NonDeterminismError: where that blocks the workflow. Its text is completed once the difference is found.
        """
        error = None
        if run.settings.on_changed_values == "block":
            error = run.park(_contradiction(run, f"writes other values to {_stream(repeated)}", "others"))
        telling = self._tell(run, repeated, error)
        streams = run.streams
        streams.findings = (*streams.findings, Context().run(asyncio.run_coroutine_threadsafe, telling, self._loop))
        if error is not None:
            raise error

    async def _tell(self, run: Run, repeated: Repeated, error: NonDeterminismError | None) -> None:
        try:
            found = await _first_difference(run, repeated)
        except DbosflowError:  # the engine is closing
            found = _Difference()
        code, there = _told(repeated, found)
        if error is not None:
            if run.contradiction is error:  # and the run was not stopped before for another reason
                run.contradict(_contradiction(run, code, there))
            return
        logger.warning(
            "workflow %s: its code %s, where its records hold %s, which stays. Either the code has changed, or its "
            "values do not follow from its records: a time or a random number does not",
            *(run.workflow_id, code, there),
        )
        _keep(run, repeated, found)


def _contradiction(run: Run, code: str, there: str) -> NonDeterminismError:
    """The error, found at the last recorded value, or at the body's end: new operations may have run before."""
    return contradiction(run.workflow_id, code, there, read_before=run.age, is_late=True)


async def _first_difference(run: Run, repeated: Repeated) -> _Difference:
    """Finds the first difference by the checksums of the blocks; reads the values of one block only."""
    ask, source = run.engine.patient_repository.ask, (run.workflow_id, repeated.key, repeated.producer)
    durable = run.history.produced[repeated.key, repeated.producer]
    for block in await ask(stream.checksums, *source):
        if block.before >= durable:
            break
        if repeated.agrees_to(block.stop, block.checksum):
            continue
        texts = serde.items_of(await ask(stream.values_at, run.workflow_id, repeated.key, block.offset))
        count = repeated.first_difference(block.before, texts)
        if count is not None:
            recorded = serde.brief(texts[count - block.before])
            return _Difference(count, recorded, repeated.text(count), count >= repeated.count)
        break
    return _Difference()


def _told(repeated: Repeated, found: _Difference) -> tuple[str, str]:
    """What the code does, and what is on record instead."""
    where = _stream(repeated)
    if found.place is None:
        return f"writes other values to {where}", "others, which are trimmed"
    if found.is_missing:
        return f"writes no more than {found.place} values to {where}", f"another one behind them, {found.recorded}"
    written = "another value" if found.written is None else found.written
    return f"writes {written} as value {found.place} of {where}", f"{found.recorded}"


def _keep(run: Run, repeated: Repeated, found: _Difference) -> None:
    """Puts the difference on record, once: a workflow that kills its workers must not seem to get further each time."""
    row = {"stream": repeated.key, "producer": repeated.producer, **found._asdict()}
    record = Record(changed_key(repeated.producer, repeated.key), RecordKind.CHANGED, output=json.dumps(row))
    if run.recorded(record.key) is not None:
        return
    with run.buffer.lock:
        if run.is_cut_short:
            return
        run.buffer.push(record)
    run.environment.submit(run)


def _stream(repeated: Repeated) -> str:
    by = f" (by branch {repeated.producer!r})" if repeated.producer else ""
    return f"stream {repeated.key!r}{by}"
