"""An engine's life: opened on the running loop or on one of its own, closed, and left to the parent by a fork."""

from __future__ import annotations

import asyncio
import atexit
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dbosflow._runtime.execution.scope import refuse_in_body
from dbosflow._runtime.process.database import Database, find_database
from dbosflow._runtime.process.host import Host, refuse_on_loop
from dbosflow.config import Settings
from dbosflow.errors import ConfigurationError, EngineClosedError

if TYPE_CHECKING:
    from types import TracebackType

    from dbosflow._runtime.engine.core import EngineCore


class Lifecycle:
    """What opens and closes: the settings, the source of Postgres, the loop, and everything that lives on it."""

    def __init__(
        self, url: str | None = None, *, executes: bool = True, data_dir: str | Path | None = None, **settings: Any
    ) -> None:
        try:
            self._settings = Settings(executes=executes, **settings)
        except TypeError as error:
            raise ConfigurationError(str(error).replace("Settings.__init__()", "Engine")) from None
        self._url = url
        self._data_dir = None if data_dir is None else Path(data_dir)
        self._ephemeral = False
        self._host = Host(self._settings.loop_factory, refuse_in_body)
        self._open_core: EngineCore | None = None
        self._database: Database | None = None
        self._opening, self._opening_async = threading.Lock(), asyncio.Lock()
        self._inherited: object = None
        """What a parent process opened, kept from collection, since its connections and loop are in use there."""

    @classmethod
    def ephemeral(cls, **settings: Any) -> Self:
        """An engine on an embedded server that is thrown away when the engine closes."""
        engine = cls(**settings)
        engine._ephemeral = True
        return engine

    def open(self) -> Self:
        """Opens the engine on a loop in a thread of its own; an open engine stays as it is.

        Its awaitable twin is ``open_async``. However often the engine was opened, the first ``close`` closes it.
        """
        if self._is_open():
            return self
        refuse_on_loop("async with Engine(...)` or `await engine.open_async()")
        with self._opening:
            if not self._is_open():
                self._open()
        return self

    def _open(self) -> None:
        database = self._find_database()
        try:
            self._host.start()
            core = self._new_core(database.url)
            self._host.on_death = core.loop_died
            self._host.call("open_async", core.open)
        except BaseException:
            self._host.stop()
            database.close()
            raise
        self._open_core, self._database = core, database
        atexit.register(self.close)

    def close(self) -> None:
        """Closes the engine: running steps finish for up to ``grace`` seconds, the rest goes on in other workers.

        A database that does not answer takes up to 30 seconds more. Then the lease ends by itself.

        Closing a closed engine does nothing. Its awaitable twin is ``close_async``.

        An engine that ``open`` opened and that was never closed is closed when the interpreter exits.
        """
        refuse_on_loop("close_async")
        self._check_may_close()
        core = self._taken_core()
        if core is None:
            return
        try:
            if not self._host.is_dead:  # else there is no loop left to close it on
                self._host.call("close_async", core.close)
        finally:
            self._host.stop()
            self._leave_database()

    async def open_async(self) -> Self:
        """Opens the engine on the running loop.

        Migrates the schema if need be, resumes what was interrupted in other processes, and from then on takes part in
        recovering theirs. An open engine stays as it is, on the loop where it is.
        """
        async with self._opening_async:
            if not self._is_open():
                await self._open_async()
        return self

    async def _open_async(self) -> None:
        database = await self._find_database_async()
        self._host.attach()
        core = self._new_core(database.url)
        try:
            await core.open()
        except BaseException:
            self._host.stop()
            await asyncio.to_thread(database.close)
            raise
        self._open_core, self._database = core, database

    async def close_async(self) -> None:
        """Closes the engine: running steps finish for up to ``grace`` seconds, the rest goes on in other workers.

        A database that does not answer takes up to 30 seconds more. Then the lease ends by itself.
        """
        self._check_may_close()
        core = self._taken_core()
        if core is None:
            return
        try:
            await self._host.bridge(core.close())
        finally:
            self._host.stop()
            await asyncio.to_thread(self._leave_database)

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return await self.open_async()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close_async()

    @property
    def database_url(self) -> str:
        """The URL that the open engine uses: that of its embedded server, where it has one."""
        if self._database is None:
            msg = "the engine is not open"
            raise EngineClosedError(msg)
        return self._database.url

    def _new_core(self, url: str) -> EngineCore:
        """The engine's part that lives on the loop, not open yet."""
        raise NotImplementedError

    @property
    def _core(self) -> EngineCore:
        core = self._open_core
        self._host.loop  # noqa: B018 (raises, and says how to open the engine)
        if core is None:
            msg = "the engine is closed"
            raise EngineClosedError(msg)
        return core

    def _find_database(self) -> Database:
        return find_database(self._url, data_dir=self._data_dir, ephemeral=self._ephemeral)

    async def _find_database_async(self) -> Database:
        finding = asyncio.ensure_future(asyncio.to_thread(self._find_database))
        try:
            return await asyncio.shield(finding)
        except asyncio.CancelledError:
            finding.add_done_callback(_leave)  # its thread goes on
            raise

    def _leave_database(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def _check_may_close(self) -> None:
        if self._is_open() and not self._host.is_dead:
            self._host.answering_loop()

    def _taken_core(self) -> EngineCore | None:
        """Takes what is to be closed, once."""
        atexit.unregister(self.close)
        self._leave_to_parent()
        core, self._open_core = self._open_core, None
        return core

    def _leave_to_parent(self) -> None:
        """Leaves what the parent opened to the parent, in a forked process. Here, the engine is a closed one."""
        if self._host.is_forked:
            self._inherited = (self._host, self._open_core, self._database)
            self._host, self._open_core, self._database = Host(self._settings.loop_factory, refuse_in_body), None, None
            self._opening, self._opening_async = threading.Lock(), asyncio.Lock()  # the old ones' holders are not here

    def _is_open(self) -> bool:
        self._leave_to_parent()
        if self._host.is_abandoned:  # what was on the loop has ended with it, and the lease has nobody to renew it
            self._open_core = None
            self._host.stop()
            self._leave_database()
        return self._open_core is not None


def _leave(finding: asyncio.Task[Database]) -> None:
    """Releases a database that is no longer awaited."""
    if not finding.cancelled() and finding.exception() is None:
        finding.result().close()
