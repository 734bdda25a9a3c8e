"""``crash_at``: ends an engine's owner at a named place, as SIGKILL would, and lets the next one take over."""

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
        """Whether the run came by, and its owner is no more."""
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
    """During the block, ``engine`` crashes once, when the workflow makes something durable.

    All that the engine runs at that moment stops as if the process had been killed: it writes nothing more, and no
    clean-up of its own has an effect that is durable. At once the same engine goes on as a new owner with an empty
    memory, takes the workflows over, and replays them. What is killed is the owner of the runs, not the Python process:
    module globals live on, and a thread in the middle of a step goes on to its end, unnoticed.

    Args:
        engine: an open engine that executes.
        workflow_id: the workflow.
        key: the key of a record, as ``dbosflow workflow show`` and ``engine.list_steps`` have them: ``"charge#0"``. Or
            ``"start"``, or ``"end"``; or, with a ``producer``, the key of a stream.
        when: ``"before"`` the statement that carries it is sent, or ``"after"`` it was committed, but before its
            answer came.
        producer: who writes to the stream: ``""`` the workflow's own body, else a branch's path, or a step's key, ``@``
            and its attempt (``"generate#0@1.1"``).
        number: which value of that producer in the stream, from 0; ``None`` is the close of the stream.

    Raises:
        AssertionError: the block is over, and nothing has crashed: a test that passed would have tested nothing.
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
