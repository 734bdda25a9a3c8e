"""Retry policies of steps."""

from __future__ import annotations

from dataclasses import dataclass

from dbosflow.config import LARGEST_INTEGER, check_seconds, check_whole
from dbosflow.errors import ConfigurationError, SerializationError


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often a step is tried, and how long to wait between attempts. Durations are seconds."""

    max_attempts: int = 1
    interval: float = 1.0
    backoff: float = 2.0
    max_interval: float = 60.0
    retry_on: tuple[type[BaseException], ...] = (Exception,)

    def __post_init__(self) -> None:
        check_whole("a step's max_attempts", self.max_attempts, 1, LARGEST_INTEGER)
        check_seconds("a step's interval", self.interval)
        check_seconds("a step's max_interval", self.max_interval)
        factor: object = self.backoff
        if not isinstance(factor, int | float) or isinstance(factor, bool) or not 1 <= factor < float("inf"):
            msg = f"a step's backoff={factor!r} must be a factor of at least 1"
            raise ConfigurationError(msg)
        for kind in self.retry_on:
            if not _is_exception(kind):
                msg = f"a step's retry_on={kind!r} must be a class of exceptions, or several in a tuple or list"
                raise ConfigurationError(msg)

    def delay_after(self, failures: int) -> float:
        """Seconds to wait after the given number of failed attempts."""
        exponent = min(failures - 1, 1000)  # a float's range ends near 2**1023
        try:
            return min(self.interval * self.backoff**exponent, self.max_interval)
        except OverflowError:
            return self.max_interval

    def allows_retry(self, failures: int, error: BaseException) -> bool:
        """Whether another attempt follows after ``failures`` failed ones, the last of them with ``error``."""
        wrong_type = isinstance(error, SerializationError)  # a result that does not fit its type will not fit next time
        return failures < self.max_attempts and isinstance(error, self.retry_on) and not wrong_type


def _is_exception(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseException)


ONCE = RetryPolicy()
"""No second attempt."""
