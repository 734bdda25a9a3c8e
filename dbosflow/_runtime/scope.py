"""Which durable thing the running code belongs to: a branch of a workflow, an attempt of a step, or a plain call.

One context variable answers it. Tasks inherit it, and so do threads started by ``asyncio.to_thread`` and callbacks:
having a scope is therefore no proof of owning it; a branch checks that for itself (see ``branch``).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from dbosflow._runtime.branch import SCOPE, Branch
from dbosflow._runtime.undecided import Producer
from dbosflow.errors import NotInWorkflowError

if TYPE_CHECKING:
    from contextvars import ContextVar

    from dbosflow._runtime.run import Run


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt of a step: what its stream writes are named after. Closed in memory before it ends in the records."""

    run: Run
    key: str
    name: str
    """``epoch.n``: no two owners of a workflow can give the same one."""
    closed: bool = field(default=False)
    producers: dict[str, Producer] = field(default_factory=dict)
    """How it writes to each stream, as its first writer there said."""

    @property
    def record_key(self) -> str:
        """The key of the record of its failure, and the name of its writes."""
        return f"{self.key}@{self.name}"

    def producer(self, key: str) -> Producer:
        """Who it is in the stream ``key``: one that is taken back if the attempt fails, unless a writer said more."""
        producer = self.producers.get(key)
        if producer is None:
            producer = self.producers[key] = Producer(self.record_key, self.name, self)
        return producer


class PlainCall:
    """A workflow or step called outside an engine: stream writes are validated and dropped."""


Scope = Branch | Attempt | PlainCall

current_scope: ContextVar[Scope | None] = cast("ContextVar[Scope | None]", SCOPE)


# A process that a step forks (multiprocessing does) is not the one that owns the workflow: there it is plain code.
os.register_at_fork(after_in_child=lambda: current_scope.set(None))


def branch_around(what: str, outside: str) -> Branch:
    """The branch that runs here, for ``what``, which reads inside a workflow; ``outside`` is the engine's method."""
    scope = current_scope.get()
    if isinstance(scope, Branch):
        return scope
    msg = f"{what} needs a workflow around it, whose body it is called in; anywhere else use engine.{outside}(...)"
    raise NotInWorkflowError(msg)


class Entered:
    """Runs the block in ``scope``."""

    __slots__ = ("_scope", "_token")

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def __enter__(self) -> None:
        self._token = current_scope.set(self._scope)

    def __exit__(self, *_error: object) -> None:
        current_scope.reset(self._token)
