"""Errors of steps: how they fail, and what a step raises to say how it is to be retried."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from dbosflow.errors.general import ConfigurationError, DbosflowError
from dbosflow.types.durations import LONGEST_DURATION


class StepFailedError(DbosflowError):
    """A step failed, and its own exception cannot be rebuilt from the record.

    The error is the same live and on replay, so a workflow's ``except`` clauses take the same path both times.
    ``error_type`` and ``error_message`` describe the step's own exception.
    """

    def __init__(self, error_type: str, error_message: str) -> None:
        super().__init__(error_type, error_message)
        self.error_type = error_type
        self.error_message = error_message

    def __str__(self) -> str:
        return f"{self.error_type}: {self.error_message}"


class StepTimeoutError(DbosflowError, TimeoutError):
    """An attempt of a step took longer than its ``timeout``, and was cancelled. It is retried like any failure."""


class NonRetryableError(DbosflowError):
    """Raised by a step that another attempt cannot help: it fails at once, whatever its retry options say.

    ``NonRetryableError("no such account")`` is the step's outcome itself. ``NonRetryableError(error)`` around another
    exception has the step fail with that one, so that the workflow's ``except`` clauses see it.
    """

    def __init__(self, reason: str | BaseException = "") -> None:
        super().__init__(reason)

    @property
    def error(self) -> BaseException | None:
        """The exception that the step fails with in place of this one."""
        reason = self.args[0] if self.args else None
        return reason if isinstance(reason, BaseException) else None


class RetryAfter(DbosflowError):  # noqa: N818 (it says what to do, as the header of HTTP that it is made from)
    """Raised by a step that an outside service asked to wait: the next attempt begins ``seconds`` later, not earlier.

    The time is on record, so a crash does not make the next attempt earlier. It is not bounded by ``max_interval``, and
    whatever ``retry_on`` says there is a next attempt, as long as ``max_attempts`` allows one. Behind the last one the
    step fails with this error, or with ``error`` if that is given.

    Args:
        seconds: seconds, or a ``timedelta``.
        error: the exception that the step fails with in place of this one.

    Raises:
        ConfigurationError: ``seconds`` is no duration.
    """

    def __init__(self, seconds: float | timedelta, error: BaseException | None = None) -> None:
        number: Any = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        if not isinstance(number, int | float) or isinstance(number, bool) or not 0 <= number <= LONGEST_DURATION:
            msg = f"RetryAfter({seconds!r}) must be a number of seconds, or a timedelta, of 0 up to a hundred years"
            raise ConfigurationError(msg)
        super().__init__(number)
        self.seconds = float(number)
        self.error = error

    def __str__(self) -> str:
        return f"to be tried again after {self.seconds:g} s" if self.error is None else str(self.error)
