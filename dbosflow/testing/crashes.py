"""``crash_at``: ends an engine's worker at a named place, as SIGKILL would, and lets the next one take over."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from dbosflow.errors import ConfigurationError
from dbosflow.testing.points import WHEN, CrashPoint, DurableOperation
from dbosflow.testing.rig import Trap, rig_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbosflow.engine import Engine
    from dbosflow.testing.points import When


class Crash:
    """A crash that ``crash_at`` has prepared."""

    def __init__(self, trap: Trap) -> None:
        self._trap = trap

    @property
    def happened(self) -> bool:
        """Whether the crash has happened."""
        return self._trap.sprung

    def __repr__(self) -> str:
        return f"<Crash: {self._trap.point}{', which happened' if self.happened else ''}>"


@contextmanager
def crash_at(
    engine: Engine,
    workflow_id: str,
    key: str,
    *,
    when: When = "before",
    producer: str | None = None,
    number: int | None = 0,
) -> Iterator[Crash]:
    """During the block, ``engine`` crashes once, at the commit of a given durable operation of a workflow.

    All workflows that the engine runs at that moment stop as if the process had been killed: they write nothing more,
    and their clean-up code has no durable effect. At once the same engine continues as a new worker with an empty
    memory, takes the workflows over, and replays them. Not the Python process is killed but the worker: module globals
    stay, and a thread in the middle of a step runs on to its end, unnoticed.

    Args:
        engine: an open engine that executes workflows.
        workflow_id: the workflow's id.
        key: the key of a record, as shown by ``dbosflow workflow show`` and ``engine.list_steps``: ``"charge#0"``. Or
            ``"start"``, or ``"end"``; or, with a ``producer``, the key of a stream.
        when: ``"before"``: before the statement that carries the operation is sent. ``"after"``: after it is committed,
            but before the answer arrives.
        producer: the writer of a value in the stream: ``""`` for the workflow's own body, else a branch's path, or a
            step's key, ``@`` and the attempt (``"generate#0@1.1"``).
        number: the index of the value among the producer's values in the stream, from 0; ``None`` is the close of the
            stream.

    Raises:
        AssertionError: nothing has crashed by the end of the block: the test would have tested nothing.
        ConfigurationError: ``when`` is not valid.
    """
    if when not in WHEN:
        msg = f'when={when!r} must be "before" or "after"'
        raise ConfigurationError(msg)
    operation = DurableOperation(workflow_id, key, producer, number if producer is not None else None)
    with rig_of(engine).trap(Trap(CrashPoint(operation, when))) as trap:
        yield Crash(trap)
    if not trap.sprung:
        msg = f"there was no crash: {operation} has not become durable while crash_at was waiting for it"
        raise AssertionError(msg)
