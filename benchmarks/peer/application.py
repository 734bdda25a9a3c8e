"""The DBOS application of this process."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from dbos import DBOS, DBOSConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

PATIENT, EAGER = "polling-1-s", "polling-50-ms"
LIMITED, LIMITED_EAGER = "limited-polling-1-s", "limited-polling-20-ms"
"""Queues with a limit over all workers."""
PARTITIONED = "partitioned-polling-20-ms"
"""A queue with a limit for each partition."""

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
        DBOS.register_queue(PATIENT)
        DBOS.register_queue(EAGER, polling_interval_sec=0.05)
        DBOS.register_queue(LIMITED, global_concurrency=10)
        DBOS.register_queue(LIMITED_EAGER, global_concurrency=10, polling_interval_sec=0.02)
        DBOS.register_queue(PARTITIONED, partition_concurrency=1, polling_interval_sec=0.02)
