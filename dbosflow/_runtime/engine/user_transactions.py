"""What an engine does about its users' own transactions: it writes into them, waits for their commits, applies them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dbosflow._runtime.queues.committed import Committed
from dbosflow._runtime.queues.relay import Relay
from dbosflow._runtime.repository import not_found
from dbosflow._store import outbox
from dbosflow._store.notify import OUTBOX_TOPIC, workflow_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from psycopg_pool import AsyncConnectionPool

    from dbosflow._runtime.repository import Repository
    from dbosflow._runtime.wakeups.topics import Wakeups
    from dbosflow._store.outbox import Identity
    from dbosflow.config import Settings

_BUSY_PAUSE = 0.01
"""Seconds until the next look at a row that another engine is just applying."""
_POLL = 0.5
"""Seconds between two looks whether the start of a workflow that is waited for was applied, without a hint."""


class UserTransactions:
    """The users' transactions of one engine."""

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        settings: Settings,
        repository: Repository,
        wakeups: Wakeups,
        announce: Callable[[Iterable[str]], None],
    ) -> None:
        self._repository = repository
        self._wakeups = wakeups
        self._announce = announce
        self._applies = settings.executes
        self.relay = Relay(pool, settings, wakeups, announce)
        self._committed = Committed(pool, settings.schema, self._have_committed)
        self.services = (self._committed, self.relay) if settings.executes else (self._committed,)
        self._loop = asyncio.get_running_loop()
        self.identity: Identity | None = None
        """What tells the engine's database from others, once it was asked for."""

    def refused(self) -> set[str]:
        """The workflows for which the database takes no start out of the outbox."""
        return self.relay.refused

    async def find_identity(self) -> Identity:
        """Asks what tells the engine's database from others."""
        self.identity = await self._repository.ask(outbox.identity)
        return self.identity

    def expect(self, transaction: str, topics: Iterable[str]) -> None:
        """Announces these topics once a transaction has committed. Called from any thread."""
        with suppress(RuntimeError):  # the engine was closed meanwhile: polls of others find it
            self._loop.call_soon_threadsafe(self._committed.expect, transaction, topics)

    def _have_committed(self, topics: Iterable[str]) -> None:
        topics = set(topics)
        if self._applies and OUTBOX_TOPIC in topics:  # others need not know: if this engine dies, their polls find it
            topics.remove(OUTBOX_TOPIC)
            self.relay.wake()
        if topics:
            self._announce(topics)

    async def bring(self, workflow_id: str) -> bool:
        """Applies the start of a workflow that is in the outbox, for who cannot wait for it; whether there was one."""
        found = False
        while await self._repository.ask(outbox.waiting_start, workflow_id) is not None:
            found = True
            if not await self.relay.apply(workflow_id):
                await asyncio.sleep(_BUSY_PAUSE)
        # Another engine may have applied it between two looks: into the workflow, and then out of here.
        return found or await self._repository.started(workflow_id) is not None

    async def wait_for_start(self, workflow_id: str) -> None:
        """Waits while the start of a workflow is in the outbox.

        Raises:
            WorkflowNotFoundError: it is not, and there is no such workflow.
        """
        news = asyncio.Event()
        unsubscribe = self._wakeups.subscribe(workflow_topic(workflow_id), news.set)
        try:
            while await self._repository.ask(outbox.waiting_start, workflow_id) is not None:
                await _either(news.wait(), _POLL)
                news.clear()
        finally:
            unsubscribe()
        if await self._repository.started(workflow_id) is None:
            raise not_found(workflow_id)


async def _either(coroutine: Any, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await coroutine
    except TimeoutError:
        pass
