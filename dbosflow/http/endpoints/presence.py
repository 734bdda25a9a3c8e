"""Who reads a workflow of an endpoint that is cancelled when its client is gone.

A refresh is a disconnect, too, and the client may come back by another server. So each server that has readers of such
a workflow says so in an attribute of the workflow, until its last reader has been gone for the grace:

```text
reader comes ──► the server's attribute is set
last one gone ──► the grace ──► a reader is back: nothing
                          └──► the attribute is removed, then the others are looked at: none left ──► cancel
```

Each server looks after its removal, so of several whose readers leave at a time at least the last one finds none. A
server that is killed leaves its attribute: such a workflow goes on to its end. One that drains has sent its readers
elsewhere: it removes its attribute before it stops, and cancels nothing. So it does where a client that waits for the
final was told to look later: nobody knows whether it will.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dbosflow.errors import DbosflowError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dbosflow.engine import Engine
    from dbosflow.http.drain import Drain

logger = logging.getLogger("dbosflow.http")

REASON = "the client has disconnected"
"""The reason of such a cancellation."""
READER = "http.reader."
"""How the names of the attributes begin."""


Parting = Literal["gone", "told", "ended"]
"""How a reader ends: its client has disconnected; it was told where to look later; or the workflow has ended."""


@dataclass(slots=True)
class Reading:
    """One reader of a workflow."""

    parting: Parting = "gone"


class Presence:
    """The readers of an endpoint's workflows in this server.

    Args:
        engine: the engine.
        grace: seconds after which a reader that is gone does not come back.
        drain: says when this server sends its readers elsewhere.
    """

    def __init__(self, engine: Engine, grace: float, drain: Drain) -> None:
        self._engine = engine
        self._grace = grace
        self._drain = drain
        self._attribute = f"{READER}{secrets.token_hex(8)}"
        self._readers: dict[str, int] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}

    @asynccontextmanager
    async def reading(self, workflow_id: str) -> AsyncIterator[Reading]:
        """A reader of the workflow, for the time of the block."""
        reading = Reading()
        self._readers[workflow_id] = self._readers.get(workflow_id, 0) + 1
        try:
            await self._come(workflow_id)
            yield reading
        finally:
            self._readers[workflow_id] -= 1
            if not self._readers[workflow_id]:
                del self._readers[workflow_id]
                if reading.parting != "ended":
                    leave = self._leave(workflow_id, reading.parting)
                    self._leaving[workflow_id] = self._drain.run(leave, f"dbosflow-http-grace-{workflow_id}")

    async def _come(self, workflow_id: str) -> None:
        if (leaving := self._leaving.pop(workflow_id, None)) is not None:
            leaving.cancel()
            await asyncio.wait([leaving])  # what it removes is set behind that
        await self._engine.workflows.update_attributes_async(workflow_id, {self._attribute: True})

    async def _leave(self, workflow_id: str, parting: Parting) -> None:
        """Cancels the workflow once the grace is over, unless somebody reads it elsewhere, or is to look again."""
        try:
            if parting == "gone":
                await self._drain.begins_within(self._grace)
            await self._engine.workflows.update_attributes_async(workflow_id, {self._attribute: None})
            if parting == "told" or self._drain.has_begun:
                return
            handle = self._engine.handle(workflow_id)
            info = await handle.info_async()
            if info.status.ended or any(name.startswith(READER) for name in info.attributes):
                return
            await handle.cancel_async(reason=REASON)
        except DbosflowError as error:  # it goes on, as it does where a server is killed
            logger.warning("workflow %s is not cancelled, though its client is gone: %s", workflow_id, error)
        finally:
            if self._leaving.get(workflow_id) is asyncio.current_task():
                del self._leaving[workflow_id]
