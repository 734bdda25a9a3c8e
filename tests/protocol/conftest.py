"""Fixtures of the tests of the protocol."""

from __future__ import annotations

import pytest

from dbosflow._store.batch import BatchRows


@pytest.fixture(params=["plain values", "arrays"])
def both_forms(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches as they are sent, those of one row as plain values, and once more all of them as arrays."""
    if request.param == "arrays":
        monkeypatch.setattr(BatchRows, "single", False)
