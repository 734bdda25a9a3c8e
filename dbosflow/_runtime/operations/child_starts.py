"""The start of a child, which the statement with its parent's record of it writes; its body may begin before that."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dbosflow._records.pins import version_of
from dbosflow._runtime.runs.entries import Record, Start
from dbosflow._store.start_options import StartOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow._records.kinds import RecordKind
    from dbosflow._runtime.execution.engine_port import OpenedChildPort
    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.runs.entries import Ending
    from dbosflow._runtime.runs.start_request import StartRequest


class _Decision:
    """What the statement decides about a child. It does not know the start that calls it: that would be a circle."""

    __slots__ = ("_launch", "is_new", "opened")

    def __init__(self, launch: Callable[[], None] | None) -> None:
        self._launch = launch
        """Begins the child behind its row; ``None`` if it begins elsewhere."""
        self.is_new = False
        self.opened: OpenedChildPort | None = None
        """Its run, if that began with an opening."""

    def __call__(self, result: bool | BaseException, /) -> None:  # noqa: FBT001 (a future's result)
        self.is_new = result is True
        if not self.is_new or (self.opened is not None and self.opened.has_row()):
            return
        if self._launch is not None:
            self._launch()


class ChildStart:
    """The start of one child of ``run``, for the statement with the record under ``key``.

    A child that is waited for begins with its opening, if it may: ``open`` it, wait until it is ``opened``, commit the
    record, and ``forget`` it, whatever has come of that. All this is for the engine's loop.
    """

    __slots__ = ("_decision", "_request", "_run", "_text", "child_id", "key", "start")

    def __init__(self, run: Run, key: str, request: StartRequest, child_id: str, arguments_text: str) -> None:
        self._run, self._request, self._text = run, request, arguments_text
        self.key, self.child_id = key, child_id
        own = run.settings.version
        request.decide_version(own, version_of(run.queue))
        owned = request.is_for(own) and not request.is_scheduled
        launch = partial(run.engine.launch_child, child_id, request, arguments_text, has_deadline=run.has_deadline)
        self._decision = _Decision(launch if owned else None)
        self.start = self._start(owned=owned)

    def _start(self, *, owned: bool) -> Start:
        run, request = self._run, self._request
        options = request.options or (StartOptions() if run.has_deadline else None)  # it gets its parent's, if earlier
        here = request.is_for(run.settings.version)
        return Start(
            self.child_id,
            request.definition.name,
            self._text,
            request.recovery_queue if here else request.stored_queue,
            request.priority,
            self._decision,
            owned=owned,
            parent_id=run.workflow_id,
            parent_key=self.key,
            inputs=request.definition.inputs,
            options=options,
            is_urgent=request.is_urgent(run.settings.safety_poll),
        )

    @property
    def is_new(self) -> bool:
        """Whether its row is, once it is durable."""
        return self._decision.is_new

    def record(self, kind: RecordKind) -> Record:
        """Its parent's record of it."""
        return Record(self.key, kind, child_id=self.child_id, start=self.start)

    def may_open(self) -> bool:
        """Whether its body may begin before its row is there. Callable from any thread.

        What a body is called with is not to be forgotten: none begins while the parent has outcomes that are not
        durable. Nor after a death of its worker: a child that kills its workers needs a row, which counts that.
        """
        start, run = self.start, self._run
        if not start.owned or start.options is not None or run.is_recovered or run.buffer.ahead:
            return False
        return run.engine.may_open(self._request)

    def open(self) -> None:
        """Begins its body now, if it still may.

        It counts as a body of its parent's: an engine that closes waits for what its relaxed steps have come to.
        """
        run = self._run
        run.body_begins()
        try:
            self._decision.opened = run.engine.open_child(self.child_id, self._request, self._text)
        finally:
            if self._decision.opened is None:
                run.body_ended()

    async def opened(self) -> None:
        """Waits until the start is to be written."""
        opened = self._decision.opened
        if opened is not None:
            self.start.ending, self.start.whole = await opened.opened()

    def forget(self) -> None:
        """Its parent waits for its start no more. If that is not durable by now, the run that was opened is over."""
        opened = self._decision.opened
        if opened is not None:
            opened.forget()
            self._run.body_ended()

    @property
    def ending(self) -> Ending | None:
        """Its end, if that is durable with its start."""
        return self.start.outcome if self.is_new else None
