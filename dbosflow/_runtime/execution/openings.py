"""Runs whose bodies begin before their starts are written: see ``opening``."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from dbosflow._runtime.runs.opening import Opening

if TYPE_CHECKING:
    from dbosflow._runtime.execution.launch import Launch
    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.execution.runner import Runner
    from dbosflow._runtime.runs.entries import Ending, Whole
    from dbosflow._runtime.runs.opening import WriteStart
    from dbosflow._runtime.runs.start_request import StartRequest
    from dbosflow.definitions import WorkflowDef

_MOST_OPENINGS = 1000
"""Runs that may begin before their starts are durable, in one round of the loop: others have to have their turns."""
_LONGEST_ON_THREAD = 0.005
"""Seconds after which the start of a sync workflow is written, whatever its body does on its thread."""
_LONGEST_PAUSE = 15
"""Runs of a sync workflow that begin behind their rows, at most, where its last openings have not been its end: such an
opening is for nothing, and its two switches of threads take a tenth of the time of a workflow with one step."""


class Openings:
    """The openings of one runner's runs."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._loop = asyncio.get_running_loop()
        self._now = 0
        self._pauses: dict[str, tuple[int, int]] = {}
        """Of sync workflows, by name: runs that begin behind their rows until the next opening, now and at first."""

    def __len__(self) -> int:
        """How many runs are in their openings now."""
        return self._now

    def may_begin(self, request: StartRequest) -> bool:
        """Whether a body may begin before its start is durable; asked once for each. Callable from any thread.

        Threads that ask at the same time may shorten a pause differently: it saves time, and nothing depends on it.
        """
        if request.options is not None or self._now >= _MOST_OPENINGS:
            return False
        name = request.definition.name
        left, pause = self._pauses.get(name, (0, 0))
        if left:
            self._pauses[name] = left - 1, pause
        return not left

    def begin(self, launch: Launch, write: WriteStart) -> Run | None:
        """Begins a body before its start is durable; ``None`` if it may not begin now.

        ``write`` is called at the end of the opening, in a later round of the loop.
        """
        definition = launch.definition
        if self._now >= _MOST_OPENINGS or self._runner.knows(launch.workflow_id):
            return None
        run = self._runner.launch(launch)
        if run is not None:
            self._now += 1
            run.opening = Opening(partial(self._is_over, definition, write))
            if not definition.is_async:
                self._loop.call_later(_LONGEST_ON_THREAD, run.opening.end)
        return run

    def _is_over(self, definition: WorkflowDef, write: WriteStart, ending: Ending | None, whole: Whole | None) -> None:
        self._now -= 1
        if not definition.is_async:
            self._note(definition.name, was_for_nothing=ending is None)
        write(ending, whole)

    def _note(self, name: str, *, was_for_nothing: bool) -> None:
        """Notes what an opening on a thread has come to; the pause until the next is doubled if that is nothing."""
        _, pause = self._pauses.pop(name, (0, 0))
        if was_for_nothing:
            pause = min(2 * pause + 1, _LONGEST_PAUSE)
            self._pauses[name] = pause, pause

    def has_row(self, run: Run) -> bool:
        """The start of ``run`` is durable, with its end if that came before it.

        Returns whether the run is over, or goes on. If not, it was stopped or its end refused: another one is to begin.
        """
        assert run.opening is not None
        ending = run.opening.ending
        if ending is not None and not ending.refusals:
            whole, run.opening.whole = run.opening.whole, None  # which refers to the run
            if whole is not None:
                whole.acknowledged(set())
            self._runner.ended(run, ending)
        elif ending is not None or run.stopping is not None:
            return False
        else:
            run.start_is_durable()
        return True

    def begin_child(self, launch: Launch) -> OpenedChild | None:
        """Begins the body of a child whose start is not written yet; ``None`` if it may not begin now."""
        opened: asyncio.Future[tuple[Ending | None, Whole | None]] = self._loop.create_future()

        def opening_is_over(ending: Ending | None, whole: Whole | None) -> None:
            if not opened.done():  # otherwise the parent has given it up
                opened.set_result((ending, whole))

        run = self.begin(launch, opening_is_over)
        return None if run is None else OpenedChild(self, self._runner, run, opened)


class OpenedChild:
    """The run of a child, until the statement with its parent's record decides about it."""

    __slots__ = ("_decided", "_opened", "_openings", "_run", "_runner")

    def __init__(
        self,
        openings: Openings,
        runner: Runner,
        run: Run,
        opened: asyncio.Future[tuple[Ending | None, Whole | None]],
    ) -> None:
        self._openings, self._runner, self._run = openings, runner, run
        self._opened = opened
        """Its result comes when the body has come to its end, or has to wait."""
        self._decided = False

    async def opened(self) -> tuple[Ending | None, Whole | None]:
        """Waits until its start is to be written: with this end and all before it, or without any."""
        return await self._opened

    def has_row(self) -> bool:
        """Its start is durable; returns whether it is over, or goes on. Otherwise another run of it is to begin."""
        self._decided = True
        return self._openings.has_row(self._run)

    def forget(self) -> None:
        """Its parent waits for it no more. If its start is not durable by now, this run of it is over."""
        if not self._decided:
            self._runner.forget(self._run, "its start was not written with its parent's record")
