"""The engine's methods for the events of workflows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, overload

from dbosflow._records.spaces import check_event, event_of
from dbosflow.config import LARGEST_OFFSET, check_identifier, check_timeout, check_whole
from dbosflow.errors import WaitTimeoutError
from dbosflow.serde import Codec, for_people
from dbosflow.streams.engine_streams import EngineStreams
from dbosflow.types import Event

if TYPE_CHECKING:
    from dbosflow._store.message import LastValue

T = TypeVar("T")


class _Wanted(NamedTuple):
    """What ``get_event`` is asked for."""

    workflow_id: str
    name: str
    seconds: float | None
    committed: bool
    after: int | None


class EngineEvents(EngineStreams):
    """The events of workflows."""

    @overload
    def get_event(
        self,
        workflow_id: str,
        name: str,
        *,
        timeout: float | None = None,
        committed: bool = False,
        after: int | None = None,
    ) -> Any: ...
    @overload
    def get_event(
        self,
        workflow_id: str,
        name: str,
        *,
        type: type[T],
        timeout: float | None = None,
        committed: bool = False,
        after: int | None = None,
    ) -> T: ...
    def get_event(
        self,
        workflow_id: str,
        name: str,
        *,
        type: Any = None,  # noqa: A002 (the word of the public interface)
        timeout: float | None = None,
        committed: bool = False,
        after: int | None = None,
    ) -> Any:
        """The last value of an event of a workflow; waits for the first one, or for a newer one.

        See ``get_event_async``, its awaitable twin, for the arguments and errors.
        """
        wanted = _Wanted(workflow_id, name, timeout, committed, after)
        return _load(wanted, type, self._host.call("get_event_async", self._event, wanted))

    @overload
    async def get_event_async(
        self,
        workflow_id: str,
        name: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109
        committed: bool = False,
        after: int | None = None,
    ) -> Any: ...
    @overload
    async def get_event_async(
        self,
        workflow_id: str,
        name: str,
        *,
        type: type[T],
        timeout: float | None = None,  # noqa: ASYNC109
        committed: bool = False,
        after: int | None = None,
    ) -> T: ...
    async def get_event_async(
        self,
        workflow_id: str,
        name: str,
        *,
        type: Any = None,  # noqa: A002 (the word of the public interface)
        timeout: float | None = None,  # noqa: ASYNC109 (a limit of the wait, in seconds)
        committed: bool = False,
        after: int | None = None,
    ) -> Any:
        """The last value of an event of a workflow; waits for the first one, or for a newer one.

        Args:
            workflow_id: the workflow that sets the event. It may run in any process, or have ended.
            name: the name that was given to ``set_event``.
            type: the type of the value; plain JSON by default.
            timeout: how long to wait, in seconds; 0: only looks; ``None``: without limit.
            committed: whether to leave out what a step has set that may still be taken back.
            after: the offset of a value that is known, from ``events``: waits for a newer one.

        Raises:
            WaitTimeoutError: the event was not set within ``timeout``.
            EventNotFoundError: the workflow has ended without setting the event, or without setting it again.
            WorkflowNotFoundError: no workflow has this id.
            SerializationError: the value is not of ``type``.
            ConfigurationError: an argument is not valid.
        """
        wanted = _Wanted(workflow_id, name, timeout, committed, after)
        return _load(wanted, type, await self._host.bridge(self._event(wanted)))

    def events(self, workflow_id: str, *, committed: bool = False) -> dict[str, Event]:
        """The events that a workflow has set, by name. See ``events_async``, its awaitable twin."""
        return self._host.call("events_async", self._events, workflow_id, committed)

    async def events_async(self, workflow_id: str, *, committed: bool = False) -> dict[str, Event]:
        """The events that a workflow has set, by name, each with its last value. The values are plain JSON.

        Args:
            workflow_id: the workflow that sets the events.
            committed: whether to leave out what a step has set that may still be taken back.

        Raises:
            WorkflowNotFoundError: no workflow has this id.
        """
        return await self._host.bridge(self._events(workflow_id, committed))

    async def _event(self, wanted: _Wanted) -> LastValue:
        workflow_id = check_identifier("workflow id", wanted.workflow_id)
        name, seconds, after = check_event(wanted.name), wanted.seconds, wanted.after
        check_timeout("timeout", seconds)
        after = -1 if after is None else check_whole("after", after, 0, LARGEST_OFFSET, or_none=True)
        try:
            async with asyncio.timeout(seconds or None):
                return await self._core.event(
                    workflow_id, name, committed=wanted.committed, after=after, once=seconds == 0
                )
        except TimeoutError:
            msg = f"event {name!r} of workflow {workflow_id!r} was not set within {seconds} s"
            raise WaitTimeoutError(msg) from None

    async def _events(self, workflow_id: str, committed: bool) -> dict[str, Event]:  # noqa: FBT001 (by the host)
        found = await self._core.repository.events(check_identifier("workflow id", workflow_id), committed)
        return {event_of(key): _shown(event_of(key), last) for key, last in found.items()}


def _load(wanted: _Wanted, annotation: Any, found: LastValue) -> Any:
    what = f"event {wanted.name!r} of workflow {wanted.workflow_id!r}"
    codec: Codec[Any] = Codec(Any if annotation is None else annotation, what)
    return codec.load(found.value or "null")


def _shown(name: str, last: LastValue) -> Event:
    assert last.offset is not None
    assert last.created_at is not None
    return Event(name, for_people(last.value or "null"), last.offset, last.created_at)
