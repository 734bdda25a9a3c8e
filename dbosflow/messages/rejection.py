"""The error with which a request or a token is rejected."""

from __future__ import annotations

from dbosflow.errors import ConfigurationError, RejectedError


def rejection(error: object) -> BaseException:
    """The exception that the caller gave; a ``RejectedError`` for a text.

    Raises:
        ConfigurationError: ``error`` is neither.
    """
    if isinstance(error, BaseException):
        return error
    if isinstance(error, str):
        return RejectedError(error)
    msg = f"reject takes an exception, or a text that says why, and got {error!r}"
    raise ConfigurationError(msg)
