"""The client that prunes what has ended long ago and is checked, so that tables stay level; slow readers meet it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, LiteralString

import psycopg

from dbosflow.errors import DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from dbosflow import Engine

RETENTION = 12.0
"""Seconds for which an ended workflow stays at least."""
_PAUSE = 2.0
_LIMIT = 5.0
"""Seconds that a removal may take: its age is by when it is asked for."""

_UNJUDGED: LiteralString = """
    SELECT extract(epoch FROM now() - min(ended_at))::double precision FROM dbosflow.workflow
    WHERE ended_at IS NOT NULL AND split_part(id, '/', 1) <> ALL(%s)"""


class Pruner:
    """Prunes by age, as users do; the age is one at which everything is checked."""

    def __init__(self, engine: Engine, url: str, checked: Callable[[], Collection[str]]) -> None:
        self.count = 0
        """Workflows that were removed, as far as that was acknowledged."""
        self._engine = engine
        self._url = url
        self._checked = checked

    async def watch(self) -> None:
        """Prunes now and then, until it is cancelled."""
        while True:
            await asyncio.sleep(_PAUSE)
            try:
                asked_at = time.monotonic()
                age = max(RETENTION, await asyncio.to_thread(self._oldest_unjudged) + _LIMIT + 1.0)
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + _LIMIT + asked_at - time.monotonic()):
                    self.count += await self._engine.prune_async(older_than=age)
            except (psycopg.Error, DatabaseUnavailableError, OSError, TimeoutError):
                continue  # it is down: part of the plan

    def _oldest_unjudged(self) -> float:
        """How long ago the first workflow ended that nobody has checked."""
        with psycopg.connect(self._url, autocommit=True, application_name="looking", connect_timeout=2) as connection:
            row = connection.execute(_UNJUDGED, ([*self._checked()],)).fetchone()
        return (row[0] or 0.0) if row else 0.0
