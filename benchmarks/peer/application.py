"""The DBOS application of this process."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from dbos import DBOS, DBOSConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

DONE = "SELECT count(*) FROM dbos.workflow_status WHERE status = 'SUCCESS'"


def _launch(url: str, coalesce: float | None) -> None:
    config: DBOSConfig = {
        "name": "benchmarks",
        "system_database_url": url,
        "log_level": "ERROR",
        # One version for all processes, or none would recover what another began.
        "application_version": "benchmarks",
    }
    if coalesce is not None:
        config["notification_coalesce_sec"] = coalesce
    DBOS(config=config)
    DBOS.launch()


@contextmanager
def launched(url: str, *, coalesce: float | None = None) -> Iterator[None]:
    """DBOS runs during the block. ``coalesce``: seconds between two notifications of news in streams."""
    _launch(url, coalesce)
    try:
        yield
    finally:
        DBOS.destroy(workflow_completion_timeout_sec=0)


@asynccontextmanager
async def launched_here(url: str, *, coalesce: float | None = None) -> AsyncIterator[None]:
    """The same, with async workflows on the running loop."""
    with launched(url, coalesce=coalesce):
        yield


def prepare(url: str) -> None:
    """Its tables, and the queues that the scenarios use."""
    with launched(url):
        DBOS.register_queue("polling-1-s")
        DBOS.register_queue("polling-50-ms", polling_interval_sec=0.05)
