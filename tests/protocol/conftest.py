"""Fixtures of the tests of the protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dbosflow._store import batch

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["a row alone", "plain values", "arrays"])
def all_forms(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Batches as they are sent; those that go as one row's INSERT as the whole statement; and all of them as arrays."""
    if request.param == "plain values":
        monkeypatch.setattr(batch, "lone_statement", lambda _shape, _schema: None)
    elif request.param == "arrays":
        monkeypatch.setattr(batch, "_is_single", lambda _tables: False)
    batch._forms.cache_clear()
    yield
    batch._forms.cache_clear()
