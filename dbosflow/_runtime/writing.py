"""Stream writes: buffered by the run, durable with or before its next record; a fast writer waits for room.

A loop that writes and never waits would hold its event loop, and so its own commits, up. So it breathes every so many
values. In a run with branches the place of a breath must not depend on timing: it is given by what was written.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dbosflow._runtime.branch import Branch
from dbosflow._runtime.scope import Attempt, PlainCall, current_scope
from dbosflow.errors import NotInWorkflowError

if TYPE_CHECKING:
    from dbosflow._runtime.run import Run

_BREATH = 64
"""Values between two breaths; a large value counts for several."""
_WEIGHT_BYTES = 4096


def write(key: str, text: str, what: str) -> Branch | Attempt | None:
    """Buffers one value for the running scope; who wrote it, or ``None`` in a plain call."""
    scope = current_scope.get()
    if isinstance(scope, Branch):
        scope.check_owner(what)
        scope.run.check_active()
        scope.run.write(key, text, scope.path, None)
        scope.unbreathed += 1 + len(text) // _WEIGHT_BYTES
        return scope
    if isinstance(scope, Attempt):
        scope.run.write(key, text, scope.producer, scope)
        return scope
    _check_plain_call(scope, what)
    return None


def close(key: str, what: str) -> None:
    """Buffers the end of a stream for the running scope."""
    scope = current_scope.get()
    if isinstance(scope, Branch):
        scope.check_owner(what)
        scope.run.check_active()
        scope.run.close_stream(key, scope.path, None)
    elif isinstance(scope, Attempt):
        scope.run.close_stream(key, scope.producer, scope)
    else:
        _check_plain_call(scope, what)


async def breathe(writer: Branch | Attempt | None) -> None:
    """Lets the loop go on now and then, and waits while the buffer is full."""
    if isinstance(writer, Attempt):
        await _let_go(writer.run, due=not writer.run.has_room)
    elif writer is not None:
        run = writer.run
        due = writer.unbreathed >= _BREATH
        if due:
            writer.unbreathed = 0
        if run.conductor is None:
            await _let_go(run, due=due)
        elif due:
            owner = writer.check_owner("write_stream_async")
            owner.operating = True
            try:
                await run.conductor.breathe()
            finally:
                owner.operating = False
                run.beat += 1


async def wait_for_room(writer: Branch | Attempt | None) -> None:
    """Waits, on a thread, while the buffer is full."""
    if writer is not None and not writer.run.has_room:
        await writer.run.thread_hands.room(writer.run)


async def _let_go(run: Run, *, due: bool) -> None:
    if not run.has_room:
        await run.loop_hands.room(run)
    elif due:
        await asyncio.sleep(0)


def _check_plain_call(scope: PlainCall | None, what: str) -> None:
    if scope is None:
        msg = f"{what} needs a workflow or step around it: there is no workflow whose stream this could be"
        raise NotInWorkflowError(msg)
