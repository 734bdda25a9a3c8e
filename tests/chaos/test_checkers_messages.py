"""The checkers of messages, tokens, requests and iterations report each corruption, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import LiteralString

import pytest

from tests.behaviour.tables import disorder
from tests.chaos.corruption import change_blocks, check_reported, corrupt, delete_blocks, run_history, violations
from tests.chaos.history.run_history import AnswerHistory

INBOX: LiteralString = "dbosflow/inbox/chat"


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        pytest.param(
            """UPDATE dbosflow.workflow SET output = '["a 0", "a 1", "a 2", "b 1"]' WHERE id = 'receiving'""",
            "its result is",
            id="a message that was not received",
        ),
        pytest.param(
            """UPDATE dbosflow.workflow SET output = '["a 0", "b 0", "b 0", "a 1", "a 2", "b 1"]'
               WHERE id = 'receiving'""",
            "its result is",
            id="a message received by two iterations",
        ),
        pytest.param(
            delete_blocks("receiving", "heard", """values::text LIKE '%a 2%'"""),
            "stream 'heard'",
            id="what a later iteration wrote is lost",
        ),
        pytest.param(
            change_blocks("receiving", INBOX, """values = replace(values::text, 'b 0', 'c 0')::json"""),
            "'b 0' was acknowledged at 1, and there is 'c 0'",
            id="an acknowledged message lost",
        ),
        pytest.param(
            change_blocks("receiving", INBOX, """values = replace(values::text, 'b 1', 'a 0')::json"""),
            "holds 'a 0' 2 times",
            id="a message sent twice",
        ),
        pytest.param(
            """UPDATE dbosflow.workflow SET output = '["a 0", "a 1", 0, 1]' WHERE id = 'conversing'""",
            "its result is",
            id="an answer that did not count",
        ),
        pytest.param(
            """UPDATE dbosflow.workflow SET output = '["a 0", "b 1", 0, 0, 1]' WHERE id = 'conversing'""",
            "its result is",
            id="a request received twice",
        ),
        pytest.param(
            change_blocks("conversing", "values", """values = replace(values::text, 'b 1', 'a 1')::json"""),
            "stream 'values', producer 'body'",
            id="another answer after a takeover",
        ),
    ],
)
def test_a_corrupted_conversation_is_reported(url: str, statement: LiteralString, expected: str) -> None:
    assert violations(url) == []
    check_reported(url, statement, expected)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (AnswerHistory({0: "a 0"}, {0: 0, 1: 7}), "of its 2 tokens those are answered: {0: 'a 0'}"),
        (AnswerHistory({0: "a 0", 1: "b 1"}, {0: 0, 1: 8}), "the reply to request 1 was 8"),
    ],
    ids=["a token that nobody has answered", "a wrong reply"],
)
def test_what_clients_were_told_is_checked(url: str, told: AnswerHistory, expected: str) -> None:
    known = replace(run_history(), answered={"conversing": told})
    assert expected in violations(url, known)


def test_two_answers_that_count_are_reported(url: str) -> None:
    told = run_history().answered["conversing"]
    told.counts(1, "b 1")
    assert told.violations == []
    told.counts(1, "a 1")
    known = replace(run_history(), answered={"conversing": told})
    assert violations(url, known) == ["token 1: 'b 1' was acknowledged, and 'a 1', too"]


def test_a_gap_in_the_records_of_an_iteration_is_reported(url: str) -> None:
    """Those of earlier iterations are removed; each later one is there."""
    assert disorder(url) == []
    corrupt(url, "UPDATE dbosflow.step SET seq = seq + 1 WHERE workflow_id = 'receiving' AND key = '~2/recv#1'")
    assert any("records out of order" in what for what in disorder(url))
