"""The streams of a database as a resource: ``engine.streams``."""

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
"""An offset that no stream comes to: half of what a ``bigint`` holds."""


class Streams:
    """The streams of an engine's database. Use it as ``engine.streams``."""

    def __init__(self, host: Host, core: EngineCore) -> None:
        self._host = host
        self._core = core

    def list(self, workflow_id: str, *, reserved: bool = False) -> Infos:
        """The streams of a workflow by key. See ``list_async``, its awaitable twin."""
        return self._host.call("list_async", self._core.repository.streams, _workflow(workflow_id), reserved)

    async def list_async(self, workflow_id: str, *, reserved: bool = False) -> Infos:
        """The streams of a workflow by key, of those that have been written to or closed.

        Args:
            workflow_id: the workflow that has the streams.
            reserved: whether to list the engine's own, too, whose keys begin with ``dbosflow/``: messages, events,
                replies to requests, and answers to tokens.

        Raises:
            WorkflowNotFoundError: no workflow has this id.
        """
        return await self._host.bridge(self._core.repository.streams(_workflow(workflow_id), reserved))

    def info(self, workflow_id: str, key: str) -> StreamInfo:
        """The state, extent and size of one stream. See ``info_async``, its awaitable twin."""
        return self._host.call("info_async", self._core.repository.stream, _workflow(workflow_id), _key(key))

    async def info_async(self, workflow_id: str, key: str) -> StreamInfo:
        """The state, extent and size of one stream.

        Raises:
            StreamNotFoundError: nothing has been written to the stream.
            WorkflowNotFoundError: no workflow has this id.
        """
        return await self._host.bridge(self._core.repository.stream(_workflow(workflow_id), _key(key)))

    def trim(self, workflow_id: str, key: str, *, before: int) -> int:
        """Removes the values before an offset, and returns the first offset that is left.

        See ``trim_async``, its awaitable twin, for what is kept.
        """
        return self._host.call("trim_async", self._trim, workflow_id, key, before)

    async def trim_async(self, workflow_id: str, key: str, *, before: int) -> int:
        """Removes the values before an offset, and returns the first offset that is left.

        That offset may be lower than ``before``, because some blocks are kept: a block is removed as a whole; values
        of a running attempt are kept with all that follows; so are the newest block and the end; and of an input,
        blocks that an open statement or snapshot in the database is too old to see. Offsets never change. A reader of
        removed values gets a ``StreamTruncatedError``. The workflow goes on, and can be replayed, as before, except if
        its body reads an input's values one by one: a replay reads those again. A loop does not read finished items
        again. Idempotency keys of removed values stay known.

        Args:
            workflow_id: the workflow that has the stream.
            key: the stream's key.
            before: the first offset to keep.

        Raises:
            StreamNotFoundError: nothing has been written to the stream.
            WorkflowNotFoundError: no workflow has this id.
            ConfigurationError: ``before`` is not a valid offset.
        """
        return await self._host.bridge(self._trim(workflow_id, key, before))

    def on(self, event: StreamEventKind, fn: Callable[[StreamEvent], object]) -> Callable[[], None]:
        """Calls ``fn`` with each event of a kind in this process. Call the returned function to end that.

        Events are reported after the commit, in the order of the commits, from a thread of their own. An exception of
        ``fn`` is logged and counted, and has no other effect. If ``fn`` is too slow, events are dropped and counted.

        Args:
            event: ``"created"``, ``"write"``, ``"rollback"``, ``"close"``, ``"error"``, ``"back-pressure"`` or
                ``"read"``; see ``dbosflow.types.StreamEvent``.
            fn: a sync function.

        Raises:
            ConfigurationError: the kind of event does not exist, or ``fn`` is not a sync function.
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
        """Statistics of the streams in this process, since the engine was opened."""
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
