"""Sends wake-ups to other processes: on a connection of its own, after the commit, never beside data.

NOTIFY in a transaction that writes takes an instance-wide lock through its commit; a transaction of nothing but NOTIFY
holds it for microseconds, and with ``synchronous_commit=off`` waits for no flush. Hints are sent at once when the
notifier is idle and coalesce while one statement is under way. A failure is a lost hint: readers poll slowly, too.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg

from dbosflow._runtime.service import Service
from dbosflow._runtime.session import Session
from dbosflow._store.notify import notify

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dbosflow.config import Settings


_TURNS_BEHIND = 3
"""Turns of the loop that a hint lets pass: what a commit sets free in this process goes first."""


class Notifier(Service):
    """Hints to other processes."""

    def __init__(self, url: str, settings: Settings) -> None:
        super().__init__("notifier", interval=None)
        self._schema = settings.schema
        self._session = Session(url, settings, "session_notifier")
        self._topics: dict[str, None] = {}

    @property
    def backend_pid(self) -> int | None:
        """The server process of its connection: a listener of this engine knows its own hints by it."""
        return self._session.backend_pid

    def send(self, topics: Iterable[str]) -> None:
        """Queues hints, each topic once."""
        self._topics.update(dict.fromkeys(topics))
        self.wake()

    async def work_once(self) -> bool:
        """Sends what is queued, in one statement."""
        if not self._topics:
            return False
        for _ in range(_TURNS_BEHIND):
            await asyncio.sleep(0)
        topics, self._topics = self._topics, {}
        await notify(await self._session.connection(), self._schema, topics)
        return bool(self._topics)

    async def close(self) -> None:
        """Sends what is left, if it can without connecting anew, and disconnects."""
        await super().close()
        with suppress(psycopg.Error):  # then these hints are lost, as any may be
            if self._topics and self._session.backend_pid is not None:
                await notify(await self._session.connection(), self._schema, self._topics)
        await self._session.close()
