"""The checkers of inputs, loops and typed streams report each corruption of the database, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import LiteralString

import pytest

from tests.chaos.corruption import (
    WRITTEN,
    change_blocks,
    check_reported,
    delete_blocks,
    record_again,
    run_history,
    violations,
)
from tests.chaos.history.run_history import WriteHistory


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        pytest.param(
            """UPDATE dbosflow.workflow SET output = '["a 0", "a 1", "b 0", "b 1"]' WHERE id = 'listening'""",
            "its result is",
            id="values read in another order",
        ),
        pytest.param(
            delete_blocks("listening", "heard", "kind = 'values'"),
            "producer 'body'",
            id="values read and not heard",
        ),
        pytest.param(
            change_blocks("listening", "chat", """values = '["c 7"]'""", '"offset" = 1'),
            "'b 0' was acknowledged at 1, and there is 'c 7'",
            id="an acknowledged value lost",
        ),
        pytest.param(
            change_blocks("listening", "chat", """values = '["a 0"]'""", '"offset" = 1'),
            "holds 'a 0' 2 times",
            id="a doubled value",
        ),
        pytest.param(
            change_blocks(
                "listening",
                "chat",
                """values = CASE "offset" WHEN 0 THEN '["a 1"]' ELSE '["a 0"]' END::json""",
                '"offset" IN (0, 2)',
            ),
            "what 'a' wrote stands in the order [1, 0]",
            id="a writer's values in another order",
        ),
        pytest.param(
            delete_blocks("listening", "chat", "kind <> 'values'"),
            "ends with []",
            id="an input left open",
        ),
        pytest.param(
            "DELETE FROM dbosflow.step WHERE workflow_id = 'looping' AND loop_offset = 1",
            "is not",
            id="an item without a record below the watermark",
        ),
        pytest.param(
            "DELETE FROM dbosflow.step WHERE workflow_id = 'looping' AND loop_offset = 4",
            "its loop has handled",
            id="an item never handled",
        ),
        pytest.param(
            record_again("looping", "loop_offset = 1 AND kind = 'step'"),
            "an item of its loop is on record twice",
            id="an item handled twice",
        ),
        pytest.param(
            """UPDATE dbosflow.step SET loop_next = 9 WHERE workflow_id = 'looping' AND loop_offset = 0""",
            "all before 9 done",
            id="a watermark too far",
        ),
        pytest.param(
            """UPDATE dbosflow.step SET loop_offset = loop_offset + 1
               WHERE workflow_id = 'looping' AND loop_offset >= 3""",
            "its loop has handled the items at",
            id="a gap in the items",
        ),
        pytest.param(
            """UPDATE dbosflow.workflow SET output = '["a 7 is bad"]' WHERE id = 'raising'""",
            "its result is",
            id="another failure than the first",
        ),
        pytest.param(
            delete_blocks("looping", "loop.dead", '"offset" = 1'),
            "of dead letters",
            id="a lost letter",
        ),
        pytest.param(
            change_blocks(
                "looping", "loop.dead", "values = replace(values::text, 'a 6 is bad', 'oh')::json", "kind = 'values'"
            ),
            "of dead letters",
            id="a letter with another error",
        ),
        pytest.param(
            change_blocks(
                "resuming",
                "resumed",
                r"values = regexp_replace(values::text, ', *1\]\]', ', 0]]')::json",
                "kind = 'values'",
            ),
            "stream 'resumed', producer 'step 0': 3 values where 3 are right, the first difference at 1",
            id="a token again after a resume",
        ),
        pytest.param(
            delete_blocks("resuming", "kept", "kind = 'values'"),
            "its outcome is on record, and 0 of 3 values",
            id="what was to be kept is lost",
        ),
        pytest.param(
            change_blocks("resuming", "typed", "kind = 'rollback'", '"offset" = 0'),
            "'typed' were rolled back",
            id="what was to be kept is rolled back",
        ),
        pytest.param(
            change_blocks("resuming", "typed", "values = '7'", "kind = 'complete'"),
            "is closed with 7, and should be with 2",
            id="another final payload",
        ),
        pytest.param(
            change_blocks("limited", "values", """values = '[["body", 0]]'""", "kind = 'values'"),
            "stream 'values'",
            id="a lost value of a limited queue",
        ),
    ],
)
def test_a_corrupted_input_or_loop_is_reported(url: str, statement: LiteralString, expected: str) -> None:
    assert violations(url) == []
    check_reported(url, statement, expected)


def test_a_value_that_was_refused_and_is_there_is_reported(url: str) -> None:
    offsets = {value: offset for offset, value in enumerate(WRITTEN["listening"][1])}
    del offsets["b 1"]
    known = replace(
        run_history(), written={**run_history().written, "listening": WriteHistory(offsets, refused={"b 1"})}
    )
    assert violations(url, known) == ["input 'chat': 'b 1' was refused, and is there"]


def test_a_write_that_was_acknowledged_at_two_places_is_reported(url: str) -> None:
    written = WriteHistory()
    written.add([["a 0", 3], ["a 1", None]])
    written.add([["a 0", 3]])
    assert written.violations == []
    written.add([["a 0", 4]])
    assert written.violations == ["'a 0' was acknowledged at 3, then at 4"]
    known = replace(run_history(), written={**run_history().written, "listening": written})
    assert any("then at 4" in what for what in violations(url, known))
