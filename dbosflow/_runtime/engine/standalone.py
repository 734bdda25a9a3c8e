"""Streams that belong to no workflow, for one engine: the transactions of the store, and the hints that follow them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg

from dbosflow._records.spaces import STANDALONE_KEY
from dbosflow._store import standalone
from dbosflow._store.notify import stream_topic
from dbosflow._store.queries import is_refused
from dbosflow.errors import PermissionDeniedError, SerializationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from psycopg import AsyncConnection

    from dbosflow._runtime.repository import Repository
    from dbosflow._store.standalone import Append, Appending, Creation, Standalone

T = TypeVar("T")

_SWEPT = 4
"""How many expired streams a creation removes at most: more than it adds, so that none stay where any are made."""


class StandaloneStreams:
    """The streams that belong to no workflow, of one engine."""

    def __init__(self, repository: Repository, announce: Callable[[Iterable[str]], None]) -> None:
        self._repository = repository
        self._announce = announce

    async def look(self, path: str, access: bool) -> Standalone | None:  # noqa: FBT001 (handed on by position)
        """The stream at a path; ``access``: which counts as an access to it, and moves its end on."""
        found = await self._repository.ask(standalone.look, path)
        if found is not None and access and found.is_aging and not found.is_over:
            await self._repository.ask(standalone.touch, path)
        return found

    async def create(self, what: Creation) -> tuple[str, Standalone | None]:
        """Makes a stream, durable on return; see ``standalone.create``.

        Raises:
            SerializationError: the database does not take its content.
        """
        outcome, found = await self._write(standalone.create, what)
        while outcome == "raced":
            outcome, found = await self._write(standalone.create, what)
        if outcome == "created":
            await self._sweep()
        return outcome, found

    async def append(self, path: str, what: Append) -> tuple[Standalone, Appending] | Standalone | None:
        """Appends to a stream, durable on return; see ``standalone.append``.

        Raises:
            SerializationError: the database does not take the content.
        """
        result = await self._write(standalone.append, path, what)
        if isinstance(result, tuple) and result[1].outcome == "appended":
            self._announce([stream_topic(result[0].id, STANDALONE_KEY)])
        return result

    async def delete(self, path: str) -> Standalone | None:
        """Removes a stream; returns what was there."""
        return await self._repository.ask(standalone.delete, path)

    async def _write(self, statement: Callable[..., Awaitable[T]], *values: object) -> T:
        try:
            return await self._repository.ask(statement, *values)
        except psycopg.Error as error:
            if is_refused(error):
                raise SerializationError("the database refused the content") from error
            raise

    async def _sweep(self) -> None:
        with suppress(PermissionDeniedError):  # a client's role, which may remove no frames
            for path in await self._repository.ask(standalone.expired, _SWEPT):
                await self._repository.ask(_delete_expired, path)


async def _delete_expired(connection: AsyncConnection[Any], schema: str, path: str) -> None:
    await standalone.delete(connection, schema, path, expired=True)
