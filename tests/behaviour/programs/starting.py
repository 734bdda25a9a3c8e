"""Workflows that say when they are started."""

from __future__ import annotations

from dbosflow import step, workflow
from tests.behaviour.ledger import note


@step
async def noted(what: str) -> str:
    """One line in the ledger for each time that the body runs."""
    note(what)
    return what


@workflow
async def starting_once(what: str) -> str:
    """Notes what it was started with."""
    return await noted(what)
