"""``engine.workflows.reencrypt``: puts everything that is stored under the engine's first key."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from dbosflow._store import reencryption
from dbosflow.config import LARGEST_INTEGER, check_whole
from dbosflow.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dbosflow._runtime.engine.core import EngineCore
    from dbosflow._runtime.process.host import Host

logger = logging.getLogger("dbosflow.engine")

_PASSES = 10
"""Passes at most: one finds what other processes have moved or written during the one before, which is little."""


@dataclass(frozen=True, slots=True)
class Reencrypted:
    """What became of a database's rows."""

    rows: int
    """Rows that were rewritten; with ``dry_run``, that would be."""
    unreadable: int
    """Payloads that this engine cannot decode, and that stay as they are; the values of a block count as one."""


class Reencryption:
    """Replaces keys."""

    _host: Host
    _core: EngineCore

    def reencrypt(self, *, batch: int = 500, dry_run: bool = False) -> Reencrypted:
        """Puts every payload under the engine's first key. See ``reencrypt_async``, its awaitable twin."""
        return self._host.call("reencrypt_async", self._reencrypt, _checked(batch), dry_run)

    async def reencrypt_async(self, *, batch: int = 500, dry_run: bool = False) -> Reencrypted:
        """Puts every payload that another key encrypts, or none, under the engine's first key.

        Everything else goes on meanwhile: each row is rewritten by a statement of its own, unless it has changed or
        gone since it was read. It may be interrupted and called again, and rewrites only what is left. When it
        returns, no readable row needs another key, if all other processes write with the same first key. It needs the
        rights of the schema's owner.

        Args:
            batch: the number of rows that are read at once.
            dry_run: whether to rewrite nothing, and only count the rows.

        Raises:
            ConfigurationError: the engine has no codec that encrypts, or ``batch`` is not valid.
            PermissionDeniedError: this role may not change records.
        """
        return await self._host.bridge(self._reencrypt(_checked(batch), dry_run))

    async def _reencrypt(self, batch: int, dry_run: bool) -> Reencrypted:  # noqa: FBT001 (by the host)
        if not self._core.encrypts:
            msg = "this engine has no codec that encrypts: give it codecs=[Encrypt(keys)], or DBOSFLOW_ENCRYPTION_KEYS"
            raise ConfigurationError(msg)
        rows, unreadable = await self._pass(batch, dry_run=dry_run)
        for error, count in unreadable.items():
            logger.warning("%d payload(s) cannot be read, and stay as they are: %s", count, error)
        changed, passes = rows, 1
        while changed and not dry_run and passes < _PASSES:
            changed, unreadable = await self._pass(batch, dry_run=False)
            rows, passes = rows + changed, passes + 1
        if changed and not dry_run:
            logger.warning(
                "other processes write with another key: give all of them the new one first, and repeat this"
            )
        return Reencrypted(rows, unreadable.total())

    async def _pass(self, batch: int, *, dry_run: bool) -> tuple[int, Counter[str]]:
        """One walk over all tables: how many rows needed it, and the errors of those that cannot be read."""
        changed, unreadable = 0, Counter[str]()
        rewrite = partial(reencryption.rewrite_page, limit=batch, dry_run=dry_run)
        for table, first in reencryption.BEFORE_ALL.items():
            after: Mapping[str, Any] | None = first
            while after is not None:
                page = await self._core.repository.ask(rewrite, table, after)
                after, changed = page.after, changed + page.changed
                unreadable.update(page.unreadable)
        return changed, unreadable


def _checked(batch: int) -> int:
    return check_whole("batch", batch, 1, LARGEST_INTEGER)
