"""The checkers of inputs, loops and typed streams report each corruption of the database, and nothing else."""

from __future__ import annotations

from typing import LiteralString

import pytest

from tests.chaos.corruption import WRITTEN, corrupt, run_history, violations
from tests.chaos.history.run_history import RunHistory, WriteHistory


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        pytest.param(
            """UPDATE dbosflow.workflow SET output = '["a 0", "a 1", "b 0", "b 1"]' WHERE id = 'listening'""",
            "its result is",
            id="values read in another order",
        ),
        pytest.param(
            """DELETE FROM dbosflow.stream_block
               WHERE workflow_id = 'listening' AND key = 'heard' AND kind = 'values'""",
            "producer 'body'",
            id="values read and not heard",
        ),
        pytest.param(
            """UPDATE dbosflow.stream_block SET values = '["c 7"]'
               WHERE workflow_id = 'listening' AND key = 'chat' AND "offset" = 1""",
            "'b 0' was acknowledged at 1, and there is 'c 7'",
            id="an acknowledged value lost",
        ),
        pytest.param(
            """UPDATE dbosflow.stream_block SET values = '["a 0"]'
               WHERE workflow_id = 'listening' AND key = 'chat' AND "offset" = 1""",
            "holds 'a 0' 2 times",
            id="a doubled value",
        ),
        pytest.param(
            """UPDATE dbosflow.stream_block SET values = CASE "offset" WHEN 0 THEN '["a 1"]' ELSE '["a 0"]' END::json
               WHERE workflow_id = 'listening' AND key = 'chat' AND "offset" IN (0, 2)""",
            "what 'a' wrote stands in the order [1, 0]",
            id="a writer's values in another order",
        ),
        pytest.param(
            """DELETE FROM dbosflow.stream_block
               WHERE workflow_id = 'listening' AND key = 'chat' AND kind <> 'values'""",
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
            """INSERT INTO dbosflow.step SELECT workflow_id, 'again', kind, epoch, 99, turn, attempt, output, error,
                   child_id, wake_at, started_at, recorded_at, loop_key, loop_offset, loop_next
               FROM dbosflow.step WHERE workflow_id = 'looping' AND loop_offset = 1 AND kind = 'step'""",
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
            """DELETE FROM dbosflow.stream_block
               WHERE workflow_id = 'looping' AND key = 'loop.dead' AND "offset" = 1""",
            "of dead letters",
            id="a lost letter",
        ),
        pytest.param(
            """UPDATE dbosflow.stream_block SET values = replace(values::text, 'a 6 is bad', 'oh')::json
               WHERE workflow_id = 'looping' AND key = 'loop.dead' AND kind = 'values'""",
            "of dead letters",
            id="a letter with another error",
        ),
        pytest.param(
            r"""UPDATE dbosflow.stream_block SET values = regexp_replace(values::text, ', *1\]\]', ', 0]]')::json
                WHERE workflow_id = 'resuming' AND key = 'resumed' AND kind = 'values'""",
            "stream 'resumed', producer 'step 0': 3 values where 3 are right, the first difference at 1",
            id="a token again after a resume",
        ),
        pytest.param(
            """DELETE FROM dbosflow.stream_block WHERE workflow_id = 'resuming' AND key = 'kept' AND kind = 'values'""",
            "its outcome is on record, and 0 of 3 values",
            id="what was to be kept is lost",
        ),
        pytest.param(
            """UPDATE dbosflow.stream_block SET kind = 'rollback'
               WHERE workflow_id = 'resuming' AND key = 'typed' AND "offset" = 0""",
            "'typed' were rolled back",
            id="what was to be kept is rolled back",
        ),
        pytest.param(
            """UPDATE dbosflow.stream_block SET values = '7'
               WHERE workflow_id = 'resuming' AND key = 'typed' AND kind = 'complete'""",
            "is closed with 7, and should be with 2",
            id="another final payload",
        ),
        pytest.param(
            """UPDATE dbosflow.stream_block SET values = '[["body", 0]]'
               WHERE workflow_id = 'limited' AND key = 'values' AND kind = 'values'""",
            "stream 'values'",
            id="a lost value of a limited queue",
        ),
    ],
)
def test_a_corrupted_input_or_loop_is_reported(url: str, statement: LiteralString, expected: str) -> None:
    assert violations(url) == []
    corrupt(url, statement)
    assert any(expected in what for what in violations(url)), violations(url)


def test_a_value_that_was_refused_and_is_there_is_reported(url: str) -> None:
    offsets = {value: offset for offset, value in enumerate(WRITTEN["listening"][1])}
    del offsets["b 1"]
    known = RunHistory(written={**run_history().written, "listening": WriteHistory(offsets, refused={"b 1"})})
    assert violations(url, known) == ["input 'chat': 'b 1' was refused, and is there"]


def test_a_write_that_was_acknowledged_at_two_places_is_reported(url: str) -> None:
    written = WriteHistory()
    written.add([["a 0", 3], ["a 1", None]])
    written.add([["a 0", 3]])
    assert written.violations == []
    written.add([["a 0", 4]])
    assert written.violations == ["'a 0' was acknowledged at 3, then at 4"]
    known = RunHistory(written={**run_history().written, "listening": written})
    assert any("then at 4" in what for what in violations(url, known))
