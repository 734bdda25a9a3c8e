"""Recorders of runs: which operations a body requests, and what its steps are given and return."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from dbosflow._runtime.execution.wrapped_driver import WrappedDriver
from dbosflow.transaction_definitions import TransactionDef

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dbosflow._runtime.execution.drivers import Driver
    from dbosflow._runtime.execution.run import Run, StepAttempt
    from dbosflow.definitions import FunctionDef


class Recorder(Protocol):
    """Records the runs that it is attached to."""

    def skipped(self, run: Run, key: str, producer: str, count: int, text: str) -> None:
        """A replay has passed a stream value that is durable."""

    def replayed(self, run: Run, key: str) -> None:
        """The body has requested an operation that is on record."""

    def called(self, run: Run, key: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """The body of the step ``key`` is about to run."""

    def returned(self, run: Run, key: str, function: FunctionDef, value: Any) -> Any:
        """The body of the step ``key`` has returned ``value``. Returns what the step's caller gets."""

    def drawn(self, run: Run, key: str, text: str) -> str:
        """The body has drawn a new value. Returns the value that it gets, as JSON."""

    def attach(self, run: Run) -> None:
        """Attaches the recorder to a run whose body has not begun."""
        run.environment = replace(
            run.environment,
            on_skipped=self.skipped,
            on_drawn=self.drawn,
            loop_driver=_RecordingDriver(run.loop_driver, self),
            thread_driver=_RecordingDriver(run.thread_driver, self),
        )


class _RecordingDriver(WrappedDriver):
    """A driver that reports to a recorder."""

    def __init__(self, driver: Driver, recorder: Recorder) -> None:
        super().__init__(driver)
        self._recorder = recorder

    async def turn_of(self, run: Run, key: str) -> None:
        self._recorder.replayed(run, key)
        await super().turn_of(run, key)

    async def await_cancellation(self, run: Run, key: str) -> None:
        self._recorder.replayed(run, key)
        await super().await_cancellation(run, key)

    async def call(
        self, attempt: StepAttempt, function: FunctionDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        given = args[1:] if isinstance(function, TransactionDef) else args  # without the connection
        self._recorder.called(attempt.run, attempt.key, given, kwargs)
        returned = await super().call(attempt, function, args, kwargs)
        return self._recorder.returned(attempt.run, attempt.key, function, returned)
