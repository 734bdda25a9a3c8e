"""What can be done about streams from outside: ``engine.streams``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbosflow.config import check_identifier

if TYPE_CHECKING:
    from dbosflow._runtime.core import Core
    from dbosflow._runtime.host import Host
    from dbosflow.types import StreamInfo

    Infos = list[StreamInfo]


class Streams:
    """The streams of an open engine's database. Made by the engine: ``engine.streams``."""

    def __init__(self, host: Host, core: Core) -> None:
        self._host = host
        self._core = core

    def list(self, workflow_id: str) -> Infos:
        """Blocking twin of :meth:`list_async`."""
        return self._host.call(self._core.streams(_workflow(workflow_id)), "list_async")

    async def list_async(self, workflow_id: str) -> Infos:
        """The streams of a workflow by key: those that somebody has written to, or closed.

        Raises:
            WorkflowNotFoundError: there is no such workflow.
        """
        return await self._host.bridge(self._core.streams(_workflow(workflow_id)))

    def info(self, workflow_id: str, key: str) -> StreamInfo:
        """Blocking twin of :meth:`info_async`."""
        return self._host.call(self._core.stream(_workflow(workflow_id), _key(key)), "info_async")

    async def info_async(self, workflow_id: str, key: str) -> StreamInfo:
        """How one stream stands: its state, how far it goes and how far it is committed, what it takes to store it.

        Raises:
            StreamNotFoundError: nobody has written to it.
            WorkflowNotFoundError: there is no such workflow.
        """
        return await self._host.bridge(self._core.stream(_workflow(workflow_id), _key(key)))


def _workflow(workflow_id: str) -> str:
    return check_identifier("workflow id", workflow_id)


def _key(key: str) -> str:
    return check_identifier("stream key", key)
