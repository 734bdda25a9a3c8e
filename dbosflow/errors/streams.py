"""Errors about one stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbosflow.errors.general import DbosflowError

if TYPE_CHECKING:
    from dbosflow.types.streams import Rollback


class StreamError(DbosflowError):
    """The base of the errors about one stream. ``workflow_id`` and ``key`` say which one."""

    def __init__(self, workflow_id: str, key: str, message: str) -> None:
        super().__init__(workflow_id, key, message)
        self.workflow_id = workflow_id
        self.key = key
        self.message = message

    def __str__(self) -> str:
        return self.message


class StreamNotFoundError(StreamError):
    """Nothing has been written to a stream of this key. Reading such a stream waits; only looking it up fails."""


class StreamClosedError(StreamError):
    """The stream is closed. Nothing can be written to it any more."""


class StreamValueTooLargeError(StreamError):
    """The value is above the engine's ``value_bytes`` and was not written. Write parts, or a reference to it."""


class StreamFullError(StreamError):
    """The stream has reached its ``stream_values`` or ``stream_bytes``. No more values are written."""


class StreamBackPressureError(StreamError):
    """There was no room for the value within ``buffer_timeout``. It was not written, and may be written again.

    Room becomes free when the database commits earlier values. A slow reader never holds up a writer.
    """


class StreamInputError(StreamError):
    """A write from outside to a stream that is not a declared input, or a write by the workflow to its own input."""


class StreamRolledBackError(StreamError):
    """An attempt of a step failed, and values of it that were read no longer count. The reader stays usable.

    ``rollback`` has their offsets. To handle rollbacks without an error, read with ``on_rollback=``, or with
    ``view="committed"``, which never shows values of an attempt that is still running.
    """

    def __init__(self, workflow_id: str, key: str, message: str, rollback: Rollback) -> None:
        super().__init__(workflow_id, key, message)
        self.args = (workflow_id, key, message, rollback)
        self.rollback = rollback


class StreamTruncatedError(StreamError):
    """The values to be read are gone, because the stream was trimmed. ``first_available`` is the first offset left."""

    def __init__(self, workflow_id: str, key: str, message: str, first_available: int) -> None:
        super().__init__(workflow_id, key, message)
        self.args = (workflow_id, key, message, first_available)
        self.first_available = first_available


class StreamTimeoutError(StreamError, TimeoutError):
    """No value and no end arrived within the reader's ``timeout``. The reader stays usable."""


class StreamFailedError(StreamError):
    """The workflow failed while the stream was open. Its exception is the ``__cause__``."""


class StreamCancelledError(StreamError):
    """The workflow was cancelled while the stream was open. ``reason`` is what the caller of ``cancel`` said."""

    reason: str | None = None

    def __init__(self, workflow_id: str, key: str, message: str, reason: str | None = None) -> None:
        super().__init__(workflow_id, key, message)
        self.reason = reason
