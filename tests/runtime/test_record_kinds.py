"""Kinds of record: the words that are stored, and what each one means to a replay."""

from __future__ import annotations

import pytest

from dbosflow._records.kinds import RecordKind, is_delivered, shows_operation

OUTCOMES = {
    *(
        "step",
        "transaction",
        "sleep",
        "child",
        "result",
        "status",
        "info",
        "cancel",
        "read",
        "for_each",
        "flush",
        "emitted",
    ),
    *("send", "recv", "token", "answer", "attributes", "use"),
    *("map", "first"),
    *("woken", "given_up", "expired", "cancelled"),
}
SILENT = {"attempt", "timeout", "until", "drawn", "mapped", "mapped_result"}
NO_OPERATION = {"patched", "refused", "changed", "cancelled", "compensating", "continued"}


def test_the_words_are_stored_so_they_stay() -> None:
    assert set(RecordKind) == OUTCOMES | SILENT | NO_OPERATION


@pytest.mark.parametrize("kind", RecordKind)
def test_each_kind_says_whether_it_is_delivered_and_shows_an_operation(kind: RecordKind) -> None:
    assert is_delivered(kind) == is_delivered(str(kind)) == (kind in OUTCOMES)
    assert shows_operation(kind) == shows_operation(str(kind)) == (kind not in NO_OPERATION)


def test_a_kind_of_newer_code_is_an_operation_with_an_outcome() -> None:
    """So a replay by older code waits for its turn, and is blocked: it passes over nothing."""
    assert is_delivered("of next year")
    assert shows_operation("of next year")
