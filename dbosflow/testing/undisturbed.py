"""The undisturbed first run of a sweep, and the progress that is shown during the sweep."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dbosflow import serde
from dbosflow.errors import SerializationError
from dbosflow.testing.clock import MovableClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbosflow.testing.points import CrashPoint
    from dbosflow.testing.rig import Rig
    from dbosflow.workflows import WorkflowSpec

    Errors = type[BaseException] | tuple[type[BaseException], ...]

logger = logging.getLogger("dbosflow.testing")

_LONGEST = 200
"""Characters of a value in a failed assertion."""


class Undisturbed:
    """What a workflow returned or raised in the run without a crash."""

    def __init__(self, what: str, result: object, error: BaseException | None) -> None:
        self._what = what
        self._result = result
        self._error = error

    def check(self, expects: Errors | None) -> None:
        """Raises an ``AssertionError`` unless the run ended as expected: a workflow that always fails proves little."""
        if expects is None and self._error is not None:
            kind = type(self._error).__name__
            msg = (
                f"{self._what} {self}, without any crash. Where that is how it is to end, say so: "
                f"assert_crash_safe(..., expects={kind})"
            )
            raise AssertionError(msg) from self._error
        if expects is not None and not isinstance(self._error, expects):
            names = [one.__name__ for one in (expects if isinstance(expects, tuple) else (expects,))]
            msg = f"{self._what} was to fail with {' or '.join(names)}; without any crash it {self}"
            raise AssertionError(msg) from self._error

    def __str__(self) -> str:
        if self._error is not None:
            return _short(f"failed with {type(self._error).__name__}: {self._error}")
        try:
            return _short(f"gave {serde.plain.dump(self._result)}")
        except SerializationError:
            return _short(f"gave {self._result!r}")


class Progress:
    """Shows the progress of a sweep: in the log, and on a terminal in one line that is overwritten."""

    def __init__(self, spec: WorkflowSpec[..., object]) -> None:
        self._what = spec.definition.name
        self._shows = sys.stderr.isatty()

    def begun(self, outcome: Undisturbed, count: int) -> None:
        """The undisturbed runs are over."""
        logger.info("workflow %r %s; now with %d crashes, one at a time", self._what, outcome, count)

    def crash(self, number: int, count: int, point: CrashPoint) -> None:
        """The next run begins."""
        logger.info("workflow %r, crash %d of %d: %s", self._what, number, count, point)
        if self._shows:
            sys.stderr.write(f"\r\x1b[K{self._what}: crash {number} of {count}")
            sys.stderr.flush()

    def over(self) -> None:
        """Erases the line."""
        if self._shows:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


@contextmanager
def skipping(rig: Rig) -> Iterator[None]:
    """During the block no durable sleep takes real time: the clock of the engine's new runs moves by itself."""
    clock = rig.clock
    moving = clock if isinstance(clock, MovableClock) else MovableClock()
    rig.clock, skips = moving, moving.skips
    moving.skips = True
    try:
        yield
    finally:
        rig.clock, moving.skips = clock, skips


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
