"""``assert_crash_safe``: runs a workflow again and again, with a crash at each of its durable operations."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ParamSpec, overload
from uuid import uuid4

from dbosflow._runtime.process.host import refuse_on_loop
from dbosflow._runtime.queues.slots import Serving
from dbosflow.engine import Engine
from dbosflow.filters import WorkflowFilter
from dbosflow.testing.points import START, WHEN, CrashPoint
from dbosflow.testing.rig import Trap, bridged, core_of, rig_of
from dbosflow.testing.server import fresh_database
from dbosflow.testing.transcript import Memory, Transcript, differences
from dbosflow.testing.undisturbed import Progress, Undisturbed, skipping
from dbosflow.types import WorkflowStatus
from dbosflow.workflows import spec_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dbosflow.testing.transcript import Ended
    from dbosflow.testing.undisturbed import Errors
    from dbosflow.workflows import Workflow, WorkflowSpec

P = ParamSpec("P")

PATIENCE = 60.0
"""Seconds that one execution with its crash may take."""
_TRIES = 100
_PAUSE = 0.01
"""How often, and after how many seconds, what has ended is pruned again, if some of it was kept."""
_ENDED = [status for status in WorkflowStatus if status.ended]


@dataclass(frozen=True, slots=True)
class CrashReport:
    """The result of ``assert_crash_safe``."""

    operations: tuple[str, ...]
    """The durable operations of the workflow and its children, in the order of the undisturbed run."""
    points: int
    """The number of crashes, each followed by a takeover and a comparison."""
    outcome: str
    """How the undisturbed run ended, in words: ``gave 3``, or ``failed with ValueError: no``."""
    missed: tuple[str, ...]
    """Crash points that a later execution did not reach, because it took another, equally valid path."""
    not_compared: tuple[str, ...]
    """Streams that were not compared, because steps write other values to them each time, even without a crash."""


@overload
def assert_crash_safe(
    workflow: Workflow[P, Any, Any] | WorkflowSpec[P, Any], /, *args: P.args, **kwargs: P.kwargs
) -> CrashReport: ...
@overload
def assert_crash_safe(
    workflow: Workflow[..., Any, Any] | WorkflowSpec[..., Any],
    /,
    *args: Any,
    engine: Engine,
    expects: Errors | None = None,
    **kwargs: Any,
) -> CrashReport: ...
@overload
def assert_crash_safe(
    workflow: Workflow[..., Any, Any] | WorkflowSpec[..., Any], /, *args: Any, expects: Errors, **kwargs: Any
) -> CrashReport: ...
def assert_crash_safe(
    workflow: Any, /, *args: Any, engine: Any = None, expects: Any = None, **kwargs: Any
) -> CrashReport:
    """Runs a workflow undisturbed and then once with each possible crash, and compares the results.

    See ``assert_crash_safe_async``, its awaitable twin, for the arguments and errors.
    """
    refuse_on_loop("await assert_crash_safe_async(...)")
    return asyncio.run(_assert_crash_safe(workflow, args, kwargs, engine, expects))


@overload
async def assert_crash_safe_async(
    workflow: Workflow[P, Any, Any] | WorkflowSpec[P, Any], /, *args: P.args, **kwargs: P.kwargs
) -> CrashReport: ...
@overload
async def assert_crash_safe_async(
    workflow: Workflow[..., Any, Any] | WorkflowSpec[..., Any],
    /,
    *args: Any,
    engine: Engine,
    expects: Errors | None = None,
    **kwargs: Any,
) -> CrashReport: ...
@overload
async def assert_crash_safe_async(
    workflow: Workflow[..., Any, Any] | WorkflowSpec[..., Any], /, *args: Any, expects: Errors, **kwargs: Any
) -> CrashReport: ...
async def assert_crash_safe_async(
    workflow: Any, /, *args: Any, engine: Any = None, expects: Any = None, **kwargs: Any
) -> CrashReport:
    """Runs a workflow undisturbed and then once with each possible crash, and compares the results.

    There are two crashes for each durable operation of the workflow and its children: before the statement that carries
    it is sent, and after it is committed but before the answer arrives. The worker ends as if it had been killed;
    another one takes the workflow over, replays it, and goes on to the end. Then these things must be the same as in
    the undisturbed run: the result or error, how each stream ended, its committed values, the values that a replay
    writes again, and the arguments of each step. A replay must also use every record, and never contradict one.

    Steps really run in each execution, so give them fakes. But each step *returns* what it returned in the first
    execution. So a step may draw a random number or read the time; only what the workflow's body does with it is
    compared. Streams to which steps write other values each time, even without a crash, are not compared.

    Args:
        workflow: the workflow, or its ``options(...)``, of which the workflow id is ignored.
        args: the workflow's positional arguments.
        engine: an open engine that executes workflows. Default: one on a fresh database of an embedded server, which
            serves the queues of the workflow's children. A crash ends everything that runs on the engine, and during
            the sweep its clock skips durable sleeps and pauses between attempts.
        expects: the exception class, or a tuple of classes, with which the workflow is expected to fail.
        kwargs: the workflow's keyword arguments. Pass those named ``engine`` or ``expects`` by position.

    Returns:
        The number of crashes and where they happened, and how the undisturbed run ended.

    Raises:
        AssertionError: something differs; the message names the operation, the kind of crash, and both values. Or the
            undisturbed run failed and ``expects`` does not allow it.
    """
    return await _assert_crash_safe(workflow, args, kwargs, engine, expects)


async def _assert_crash_safe(
    workflow: Any, args: tuple[Any, ...], kwargs: dict[str, Any], engine: Engine | None, expects: Errors | None
) -> CrashReport:
    if engine is not None:
        return await _Sweep(engine, spec_of(workflow), args, kwargs, is_own=False).run(expects)
    async with _own_engine() as own:
        return await _Sweep(own, spec_of(workflow), args, kwargs, is_own=True).run(expects)


@asynccontextmanager
async def _own_engine() -> AsyncIterator[Engine]:
    # Entered and left on a thread, because it takes a moment to make a database.
    with contextlib.ExitStack() as resources:
        url = await asyncio.to_thread(resources.enter_context, fresh_database())
        async with Engine(url, grace=0.0, compact_every=None) as engine:
            yield engine


class _Sweep:
    """All executions of one workflow with the same arguments."""

    def __init__(
        self,
        engine: Engine,
        spec: WorkflowSpec[Any, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        is_own: bool,
    ) -> None:
        self._engine = engine
        self._core = core_of(engine)
        self._rig = rig_of(engine)
        self._spec = spec
        self._args = args
        self._kwargs = kwargs
        self._is_own = is_own
        self._memory = Memory()
        self._served: dict[str, asyncio.Task[None]] = {}
        self._undisturbed: Undisturbed | None = None
        self._progress = Progress(spec)

    async def run(self, expects: Errors | None) -> CrashReport:
        """Runs the workflow twice undisturbed, and then with each crash."""
        try:
            with skipping(self._rig):
                return await self._run(expects)
        finally:
            self._progress.over()
            for task in self._served.values():
                task.cancel()
            await asyncio.gather(*self._served.values(), return_exceptions=True)

    async def _run(self, expects: Errors | None) -> CrashReport:
        what = f"workflow {self._spec.definition.name!r}"
        transcript, first = await self._execute(None)
        if blocked := [f"{name!r}: {ended.error}" for name, ended in first.items() if ended.status == "blocked"]:
            msg = f"{what} is parked as blocked without any crash: {'; '.join(blocked)}"
            raise AssertionError(msg)
        outcome = self._undisturbed
        assert outcome is not None
        outcome.check(expects)
        again, second = await self._execute(None)
        found = differences(first, second)
        restless = {place for place in found if place[1] is not None and place[1].is_step}
        hint = [text for place, text in found.items() if place not in restless] + again.differences
        points = [CrashPoint(operation, when) for operation in transcript.operations for when in WHEN]
        points = [point for point in points if point.operation.key != START or point.when == "after"]
        missed: list[str] = []
        self._progress.begun(outcome, len(points))
        for number, point in enumerate(points, 1):
            self._progress.crash(number, len(points), point)
            trap = Trap(point)
            transcript, ended = await self._execute(trap)
            if not trap.sprung:
                missed.append(str(point))
            label = "crashed" if trap.sprung else "run again"
            wrong = [text for place, text in differences(first, ended, label).items() if place not in restless]
            wrong = transcript.differences + wrong
            if wrong:
                raise AssertionError(_complaint(what, point if trap.sprung else None, wrong, hint))
        return CrashReport(
            operations=tuple(dict.fromkeys(str(point.operation) for point in points)),
            points=len(points) - len(missed),
            outcome=str(outcome),
            missed=tuple(missed),
            not_compared=tuple(
                f"{source.key!r} of workflow {name!r}" for name, source in restless if source is not None
            ),
        )

    async def _execute(self, trap: Trap | None) -> tuple[Transcript, dict[str, Ended]]:
        """Runs the workflow to its end; returns the transcript, and how the workflow and its children ended."""
        workflow_id = f"crash-safe-{uuid4().hex}"
        transcript = Transcript(workflow_id, self._spec.definition.name, self._memory)
        transcript.on_queue = self._serve
        spec = replace(self._spec, workflow_id=workflow_id)
        with contextlib.ExitStack() as hooks:
            hooks.enter_context(self._rig.observing(transcript))
            if trap is not None:
                trap.name_of = transcript.name_of
                hooks.enter_context(self._rig.trap(trap))
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._engine.start_async(spec, *self._args, **self._kwargs)
                    ended = await bridged(self._engine, transcript.ended(self._core))
                    if self._undisturbed is None:
                        self._undisturbed = await self._outcome(workflow_id)
            except TimeoutError:
                where = "undisturbed" if trap is None else f"with {trap.point}"
                msg = f"workflow {self._spec.definition.name!r}, {where}, has not ended within {PATIENCE:g} s"
                raise AssertionError(msg) from None
        if self._is_own:
            await self._free_ids()
        return transcript, ended

    async def _free_ids(self) -> None:
        """Frees the ids that the workflow chose for its children.

        One is held while somebody has a snapshot older than its end, which is over soon.
        """
        for _ in range(_TRIES):
            changes = await self._engine.workflows.delete_async(WorkflowFilter(status=_ENDED))
            if not any(change.outcome == "held" for change in changes):
                return
            await asyncio.sleep(_PAUSE)

    async def _outcome(self, workflow_id: str) -> Undisturbed:
        what = f"workflow {self._spec.definition.name!r}"
        try:
            return Undisturbed(what, await self._engine.handle(workflow_id).result_async(), None)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                raise
            return Undisturbed(what, None, error)

    def _serve(self, queue: str) -> None:
        """Runs the workflows of a queue that a child was started on. Called on the engine's loop."""
        if self._is_own and queue not in self._served:
            self._served[queue] = asyncio.ensure_future(self._core.work(Serving({queue: 50})))


def _complaint(what: str, point: CrashPoint | None, wrong: list[str], hint: list[str]) -> str:
    lines = [f"{what} is not crash-safe.", f"With {point}:" if point else "Run again, without a crash:"]
    lines += [f"- {text}" for text in wrong]
    if hint and point:
        lines += [
            "Two undisturbed runs differ as well, so its body depends on what is not on record (the time, chance, the",
            "order of a set, a global): do that in a step, and use what the step returns.",
        ]
    return "\n".join(lines)
