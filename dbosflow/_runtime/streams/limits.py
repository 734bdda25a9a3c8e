"""The reasons for which a write is refused, before anything of it is buffered.

A refusal that a workflow's body has seen is on record, with or before the body's next operation: so a replay is refused
at the same write, whatever the settings or the database's speed are by then. An attempt of a step needs no such record,
since its outcome is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbosflow._records.keys import refused_key
from dbosflow._records.kinds import RecordKind
from dbosflow._records.spaces import is_reserved
from dbosflow._runtime.runs.entries import Record
from dbosflow.errors import StreamBackPressureError, StreamError, StreamFullError, StreamValueTooLargeError
from dbosflow.failures import dump_error, load_error

if TYPE_CHECKING:
    from dbosflow._store.step import History
    from dbosflow.config import Settings


class Limits:
    """The limits of one run's streams, and its refusals so far."""

    def __init__(self, workflow_id: str, settings: Settings, history: History) -> None:
        self._workflow_id = workflow_id
        self._settings = settings
        self._recorded = {key: record for key, record in history.records.items() if record.kind == RecordKind.REFUSED}
        self._seen: dict[tuple[str, str, int], int] = {}

    def refusal(self, key: str, values: int, written: int, size: int) -> StreamError | None:
        """Why a value of ``size`` bytes cannot follow so many values and bytes; ``None`` if it can."""
        return refusal(self._settings, (self._workflow_id, key), values, written, size)

    def back_pressure(self, key: str) -> StreamError:
        """The error of a write that has waited too long for room."""
        msg = (
            f"the value for stream {key!r} of workflow {self._workflow_id!r} was not written: the database has not "
            f"taken what waits before it within {self._settings.buffer_timeout} s. Write it again later, or "
            "raise buffer_bytes or buffer_timeout; `dbosflow doctor` looks at the database"
        )
        return StreamBackPressureError(self._workflow_id, key, msg)

    @property
    def any_recorded(self) -> bool:
        """Whether an earlier run was refused anything: if not, no write needs to look."""
        return bool(self._recorded)

    def recorded(self, key: str, producer: str, count: int) -> StreamError | None:
        """The error that an earlier run got for the producer's write after ``count``, if any; each refusal once."""
        place = (producer, key, count)
        number = self._seen.get(place, 0)
        record = self._recorded.pop(refused_key(*place, number), None)
        if record is None:
            return None
        self._seen[place] = number + 1
        found = load_error(record.error or "{}")
        error = found.exception
        return error if isinstance(error, StreamError) else StreamError(self._workflow_id, key, found.message)

    def record(self, key: str, producer: str, count: int, error: StreamError) -> Record:
        """The record of a refusal of the producer's write after ``count``."""
        place = (producer, key, count)
        number = self._seen.get(place, 0)
        self._seen[place] = number + 1
        return Record(refused_key(*place, number), RecordKind.REFUSED, error=dump_error(error))


def refusal(settings: Settings, stream_of: tuple[str, str], values: int, written: int, size: int) -> StreamError | None:
    """Why a value of ``size`` bytes cannot follow so many values and bytes in a stream; ``None`` if it can.

    ``written`` counts each value with one byte more.
    """
    workflow_id, key = stream_of
    if size > settings.value_bytes:
        return too_large(settings, stream_of, size)
    if is_reserved(key):  # of an event only the last value counts, however many there were
        return None
    where = f"stream {key!r} of workflow {workflow_id!r}"
    if settings.stream_values is not None and values >= settings.stream_values:
        msg = (
            f"{where} is full: it has had {values} values, and stream_values is {settings.stream_values}. Go on in "
            "another stream, or close it"
        )
        return StreamFullError(workflow_id, key, msg)
    if settings.stream_bytes is not None and written + size > settings.stream_bytes:
        msg = (
            f"{where} is full: with this value of {size} bytes it would have had {written + size}, and "
            f"stream_bytes is {settings.stream_bytes}. Go on in another stream, or close it"
        )
        return StreamFullError(workflow_id, key, msg)
    return None


def too_large(settings: Settings, stream_of: tuple[str, str], size: int) -> StreamError:
    """Why no stream takes a value of ``size`` bytes."""
    workflow_id, key = stream_of
    msg = (
        f"a value of {size} bytes is too large for stream {key!r} of workflow {workflow_id!r}: value_bytes is "
        f"{settings.value_bytes}. Write it in parts, or store it elsewhere and write where"
    )
    return StreamValueTooLargeError(workflow_id, key, msg)
