"""A database for the tests of the checkers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.behaviour import ledger
from tests.chaos.corruption import run_all

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def url(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database in which most workloads have run once, and all is well."""
    monkeypatch.setenv(ledger.VARIABLE, str(tmp_path / "ledger"))
    run_all(database_url)
    return database_url
