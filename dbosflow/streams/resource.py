"""What can be done about streams from outside: ``engine.streams``."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from dbosflow._runtime.streams.statistics import EVENTS
from dbosflow.config import check_identifier
from dbosflow.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow._runtime.engine.core import EngineCore
    from dbosflow._runtime.process.host import Host
    from dbosflow.types import StreamEvent, StreamEventKind, StreamInfo, StreamStats

    Infos = list[StreamInfo]


_LARGEST = 2**62


class Streams:
    """The streams of an open engine's database. Made by the engine: ``engine.streams``."""

    def __init__(self, host: Host, core: EngineCore) -> None:
        self._host = host
        self._core = core

    def list(self, workflow_id: str) -> Infos:
        """The streams of a workflow by key: those that somebody has written to, or closed.

        Its awaitable twin is ``list_async``.
        """
        return self._host.call("list_async", self._core.repository.streams, _workflow(workflow_id))

    async def list_async(self, workflow_id: str) -> Infos:
        """The streams of a workflow by key: those that somebody has written to, or closed.

        Raises:
            WorkflowNotFoundError: there is no such workflow.
        """
        return await self._host.bridge(self._core.repository.streams(_workflow(workflow_id)))

    def info(self, workflow_id: str, key: str) -> StreamInfo:
        """How one stream stands: its state, how far it goes and how far it is committed, what it takes to store it.

        See ``info_async``, its awaitable twin.
        """
        return self._host.call("info_async", self._core.repository.stream, _workflow(workflow_id), _key(key))

    async def info_async(self, workflow_id: str, key: str) -> StreamInfo:
        """How one stream stands: its state, how far it goes and how far it is committed, what it takes to store it.

        Raises:
            StreamNotFoundError: nobody has written to it.
            WorkflowNotFoundError: there is no such workflow.
        """
        return await self._host.bridge(self._core.repository.stream(_workflow(workflow_id), _key(key)))

    def trim(self, workflow_id: str, key: str, *, before: int) -> int:
        """Removes what stands before the offset ``before``; gives the first offset that is there then.

        See ``trim_async``, its awaitable twin, for what stays.
        """
        return self._host.call("trim_async", self._trim, workflow_id, key, before)

    async def trim_async(self, workflow_id: str, key: str, *, before: int) -> int:
        """Removes what stands before the offset ``before``; gives the first offset that is there then.

        It may be lower: blocks go as a whole, and what an attempt under way has written stays, with all behind it; so
        does the newest block, the end, and of an input what a statement or snapshot that is open in the database began
        too early to see. Offsets never change. A reader of what is gone gets
        ``StreamTruncatedError``. The workflow itself goes on, and can be replayed, as before, but
        for an input whose values its body reads one by one: a replay reads those again. A loop reads nothing again that
        is done. The idempotency keys of values that are gone are still known.

        Raises:
            StreamNotFoundError: nobody has written to it.
            WorkflowNotFoundError: there is no such workflow.
        """
        return await self._host.bridge(self._trim(workflow_id, key, before))

    def on(self, event: StreamEventKind, fn: Callable[[StreamEvent], object]) -> Callable[[], None]:
        """Calls ``fn`` with each event of a kind that happens in this process; call what is returned to end that.

        After the commit, in the order of the commits, from a thread of its own. What ``fn`` raises is logged and
        counted, and concerns nobody else; where it is too slow, events are dropped, and counted.

        Args:
            event: ``"created"``, ``"write"``, ``"rollback"``, ``"close"``, ``"error"``, ``"back-pressure"`` or
                ``"read"``, as ``StreamEvent`` explains them.
            fn: a plain function.
        """
        if event not in EVENTS:
            msg = f"there is no event {event!r}; these are: {', '.join(EVENTS)}"
            raise ConfigurationError(msg)
        given: Any = fn
        if not callable(given) or inspect.iscoroutinefunction(given):
            msg = f"{fn!r} must be a plain function of one event"
            raise ConfigurationError(msg)
        return self._core.statistics.on(event, fn)

    def stats(self) -> StreamStats:
        """What the streams of this process did since the engine was opened."""
        return self._core.statistics.stats()

    async def _trim(self, workflow_id: str, key: str, before: Any) -> int:
        if not isinstance(before, int) or isinstance(before, bool) or before < 0:
            msg = f"before={before!r} must be an offset, 0 or more: that of the first frame that stays"
            raise ConfigurationError(msg)
        return await self._core.repository.trim(_workflow(workflow_id), _key(key), min(before, _LARGEST))


def _workflow(workflow_id: str) -> str:
    return check_identifier("workflow id", workflow_id)


def _key(key: str) -> str:
    return check_identifier("stream key", key)
