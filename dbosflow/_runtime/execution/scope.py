"""Which durable thing the running code belongs to: a branch of a workflow, an attempt of a step, or a plain call.

Code of an async workflow is known by the coroutine that its task resumes, whatever its context says: libraries copy
context variables from one task into another. Elsewhere a context variable tells. Threads of ``asyncio.to_thread``
inherit it, and so do callbacks: it is no proof of being the branch; a branch checks that for itself (see ``branch``).
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from dbosflow._runtime.replay.branch import SCOPE, Branch, running_coroutine
from dbosflow._runtime.streams.uncommitted import Producer
from dbosflow.errors import NotInWorkflowError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextvars import ContextVar

    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.process.thread_pool import Place


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
    place: Place | None = None
    """That of the thread which it holds; ``None`` on the loop."""

    @property
    def record_key(self) -> str:
        """The key of the record of its failure, and the name of its writes."""
        return f"{self.key}@{self.name}"

    def producer(self, key: str) -> Producer:
        """The producer of its values in the stream ``key``: rolled back if it fails, unless a writer said more."""
        producer = self.producers.get(key)
        if producer is None:
            producer = self.producers[key] = Producer(self.record_key, self.name, self)
        return producer


class PlainCall:
    """A workflow or step called outside an engine: stream writes are validated and dropped."""


Scope = Branch | Attempt | PlainCall

_scope: ContextVar[Scope | None] = cast("ContextVar[Scope | None]", SCOPE)


def current_scope() -> Scope | None:
    """The scope of the calling code; ``None`` if it has nothing to do with any workflow."""
    coroutine = running_coroutine()
    if coroutine is not None and not coroutine.operating:
        return coroutine.branch
    return _scope.get()


def set_scope(scope: Scope | None) -> None:
    """Sets what the calling context says."""
    _scope.set(scope)


def branch_around(what: str, outside: str) -> Branch:
    """The branch that runs here, for ``what``, which reads inside a workflow; ``outside`` is the engine's method."""
    scope = current_scope()
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
        self._token = _scope.set(self._scope)

    def __exit__(self, *_error: object) -> None:
        _scope.reset(self._token)


@contextmanager
def place_lent() -> Iterator[None]:
    """The running code only waits in the block, for another workflow; so does the thread that its step may hold."""
    scope = current_scope()
    if isinstance(scope, Attempt) and scope.place is not None:
        with scope.place.lent():
            yield
    else:
        yield
