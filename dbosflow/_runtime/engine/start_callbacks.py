"""What the journal calls when it has decided about a start in this process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from dbosflow._runtime.runs.entries import Start

if TYPE_CHECKING:
    import asyncio

    from dbosflow._runtime.execution.launch import Launch
    from dbosflow._runtime.execution.openings import Openings
    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.execution.runner import Runner
    from dbosflow._runtime.runs.entries import Ending
    from dbosflow._runtime.runs.start_request import StartRequest

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class OnDecided(ABC):
    """Called with whether the row of a start is new, or with the error: launches the workflow if it is."""

    runner: Runner
    launch: Launch

    @abstractmethod
    def __call__(self, result: bool | BaseException, /) -> None:  # noqa: FBT001 (a future's result)
        ...

    def launched(self, result: bool | BaseException) -> Run | None:  # noqa: FBT001 (a future's result)
        """The run of the new row; ``None`` if the row is not new, or the workflow goes on elsewhere."""
        return self.runner.launch(self.launch) if result is True else None


@dataclass(slots=True, eq=False)
class OnStarted(OnDecided):
    """The caller waits for the start."""

    started: asyncio.Future[bool]

    def __call__(self, result: bool | BaseException, /) -> None:  # noqa: FBT001 (a future's result)
        self.launched(result)
        _set_result(self.started, result)


@dataclass(slots=True, eq=False)
class OnRunStarted(OnDecided):
    """The caller waits for the end."""

    ending: asyncio.Future[Ending | None]

    def __call__(self, result: bool | BaseException, /) -> None:  # noqa: FBT001 (a future's result)
        run = self.launched(result)
        if run is not None:
            run.when_settled(self.ending)
        else:
            _set_result(self.ending, result if isinstance(result, BaseException) else None)


@dataclass(slots=True, eq=False)
class OnOpeningWritten(OnRunStarted):
    """The caller waits for the end of ``run``, whose opening has come before its start."""

    run: Run
    openings: Openings

    def __call__(self, result: bool | BaseException, /) -> None:  # noqa: FBT001 (a future's result)
        run = self.run
        if result is True and self.openings.has_row(run):
            run.when_settled(self.ending)
        elif result is True:  # another run begins
            OnRunStarted.__call__(self, result)  # super() does not find a class that its decorator has made anew
        elif isinstance(result, BaseException):
            self.runner.forget(run, "its start was not written")
            _set_result(self.ending, result)
        else:  # the row is of an earlier try whose answer was lost, maybe under another lease: the caller looks
            self.runner.forget(run, "its start was written before")
            _set_result(self.ending, None)


def start_of(request: StartRequest, on_decided: OnDecided) -> Start:
    """The start of a workflow in this process, as the journal writes it."""
    launch = on_decided.launch
    return Start(
        launch.workflow_id,
        launch.definition.name,
        launch.arguments_text,
        launch.queue,
        request.priority,
        on_decided,
        inputs=launch.definition.inputs,
        options=request.options,
    )


def _set_result(future: asyncio.Future[T], result: T | BaseException) -> None:
    if future.done():
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)
