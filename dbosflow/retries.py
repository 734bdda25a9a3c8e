"""Retry policies of steps."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, TypeVar

from dbosflow.config import LARGEST_INTEGER, check_seconds, check_whole
from dbosflow.errors import ConfigurationError, NonRetryableError, RetryAfter, SerializationError

if TYPE_CHECKING:
    from collections.abc import Iterator

E = TypeVar("E", bound=BaseException)

RetryOn = type[BaseException] | Sequence[type[BaseException]] | Callable[[Exception], object]
"""Which exceptions are worth another attempt: those of a class, or of several; or a function that says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often a step is tried, and how long to wait between attempts. Durations are seconds."""

    max_attempts: int = 1
    interval: float = 1.0
    backoff: float = 2.0
    max_interval: float = 60.0
    jitter: float = 0.0
    retry_on: tuple[type[BaseException], ...] | Callable[[Exception], object] = (Exception,)

    def __post_init__(self) -> None:
        check_whole("a step's max_attempts", self.max_attempts, 1, LARGEST_INTEGER)
        check_seconds("a step's interval", self.interval)
        check_seconds("a step's max_interval", self.max_interval)
        if not (_is_number(self.backoff) and 1 <= self.backoff < float("inf")):
            msg = f"a step's backoff={self.backoff!r} must be a factor of at least 1"
            raise ConfigurationError(msg)
        if not (_is_number(self.jitter) and 0 <= self.jitter <= 1):
            msg = f"a step's jitter={self.jitter!r} must be a fraction from 0 to 1"
            raise ConfigurationError(msg)
        self._check_retry_on()

    def _check_retry_on(self) -> None:
        if not isinstance(self.retry_on, tuple):
            if iscoroutinefunction(self.retry_on):
                msg = f"a step's retry_on={self.retry_on!r} must be a sync function: it decides at once"
                raise ConfigurationError(msg)
            return
        for kind in self.retry_on:
            if not _is_exception(kind):
                msg = (
                    f"a step's retry_on={kind!r} must be a class of exceptions, several in a tuple or list, or a "
                    "function of the exception"
                )
                raise ConfigurationError(msg)

    def delay_after(self, failures: int) -> float:
        """Seconds to wait after the given number of failed attempts, without jitter."""
        exponent = min(failures - 1, 1000)  # a float's range ends near 2**1023
        try:
            return min(self.interval * self.backoff**exponent, self.max_interval)
        except OverflowError:
            return self.max_interval

    def recorded_delay_after(self, failures: int, error: BaseException) -> float | None:
        """Seconds to wait that only the record can repeat: the ``error`` asks for them, or there is jitter."""
        asked = [one.seconds for one in _within(error, RetryAfter)]
        if asked:
            return max(asked)
        delay = self.delay_after(failures)
        if not self.jitter or not delay:
            return None
        factor = random.uniform(1 - self.jitter, 1 + self.jitter)  # noqa: S311 (no secret)
        return min(delay * factor, self.max_interval)

    def allows_retry(self, failures: int, error: BaseException) -> bool:
        """Whether another attempt follows after ``failures`` failed ones, the last of them with ``error``.

        Raises whatever the author's ``retry_on`` raises.
        """
        if failures >= self.max_attempts or isinstance(error, SerializationError):
            return False  # a result that does not fit its type will not fit next time
        if any(_within(error, NonRetryableError)):
            return False
        if any(_within(error, RetryAfter)):
            return True
        if isinstance(self.retry_on, tuple):
            return isinstance(error, self.retry_on)
        return isinstance(error, Exception) and bool(self.retry_on(error))


def retry_policy(*, retry_on: RetryOn = Exception, **options: Any) -> RetryPolicy:
    """The policy of a step's options."""
    kinds: Any = retry_on
    if isinstance(kinds, list | tuple | set | frozenset):
        kinds = tuple(kinds)
    elif isinstance(kinds, type) or not callable(kinds):
        kinds = (kinds,)  # refused by the policy, if it is no exception
    return RetryPolicy(**options, retry_on=kinds)


def outcome_of(error: BaseException) -> BaseException:
    """What a step fails with: ``error``, or the error in it, if it only says whether and when to try again."""
    if isinstance(error, NonRetryableError | RetryAfter) and error.error is not None:
        return error.error
    return error


def _within(error: BaseException, kind: type[E]) -> Iterator[E]:
    """The errors of that kind in ``error``, which may be a group."""
    if isinstance(error, kind):
        yield error
    elif isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _within(part, kind)


def _is_exception(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseException)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


ONCE = RetryPolicy()
"""No second attempt."""
