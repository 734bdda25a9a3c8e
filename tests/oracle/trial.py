"""Carries a plan out on an engine, undisturbed and with crashes, and says what is otherwise than the oracle has it."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import ExitStack
from itertools import chain
from typing import TYPE_CHECKING, Any
from unittest.mock import patch
from uuid import uuid4

import psycopg

from dbosflow._records.ids import new_id
from dbosflow._runtime.engine import starts
from dbosflow.testing.points import CrashPoint, DurableOperation
from dbosflow.testing.rig import Trap, rig_of
from tests.oracle import programs
from tests.oracle.answers import ENGINE
from tests.oracle.expected import OUTSIDE, Expected, evaluate
from tests.oracle.plans import plan
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbosflow import Engine
    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.journal.batch import Batch

LONGEST = 60.0
"""Seconds that one execution may take."""


class CrashAtBatch(Trap):
    """A crash at the batch of that number, whatever is in it: before it is sent, or once it is durable."""

    def __init__(self, number: int, *, after: bool) -> None:
        super().__init__(CrashPoint(DurableOperation("", ""), "after" if after else "before"))
        self.number = number
        self.seen = 0

    def springs(self, batch: Batch[Run], *, written: bool) -> bool:
        """Whether this is the moment."""
        if written != (self.point.when == "after"):
            return False
        self.seen += 1
        self.sprung = self.sprung or self.seen == self.number
        return self.seen == self.number

    def __str__(self) -> str:
        return f"a crash {self.point.when} batch {self.number}"


def make_table(url: str) -> None:
    """The user's own table."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS transacted (workflow_id text, number integer)")


def attempt(engine: Engine, seed: int, *, crashes: int = 2) -> list[str]:
    """What is wrong with the program of a seed: undisturbed, and twice with crashes at random batches."""
    make_table(engine.database_url)
    is_async, lines = plan(seed)
    expected, chance = evaluate(lines), random.Random(seed)
    counting = CrashAtBatch(0, after=True)
    wrong = _execute(engine, is_async, lines, expected, [counting])
    for _ in range(2):
        numbers = sorted(chance.randint(1, max(counting.seen, 1)) for _ in range(crashes))
        traps = [CrashAtBatch(number, after=chance.random() < 0.5) for number in numbers]
        wrong += _execute(engine, is_async, lines, expected, traps)
    return [f"program {seed}, {one}" for one in wrong]


def _execute(
    engine: Engine,
    is_async: bool,  # noqa: FBT001 (one of two functions)
    lines: list[Any],
    expected: Expected,
    traps: list[CrashAtBatch],
) -> list[str]:
    ENGINE[:] = [engine]
    body = programs.carry_out_async if is_async else programs.carry_out
    where = " and ".join(str(trap) for trap in traps if trap.number) or "undisturbed"
    with ExitStack() as set_up:
        for trap in traps:
            set_up.enter_context(rig_of(engine).trap(trap))
        root = uuid4().hex
        try:
            result = _result(engine, body, lines, root)
        except Exception as error:  # noqa: BLE001 (any is a finding)
            return [f"{where}: {type(error).__name__}: {error}"]
    wrong = [] if result == expected.result else [f"{where}: gave {result}, not {expected.result}"]
    wrong += [f"{where}: {one}" for one in _compare(engine, root, expected)]
    engine.prune(older_than=0)
    return wrong


def _result(engine: Engine, body: Any, lines: list[Any], root: str) -> Any:
    """The result of a program under that id: of one with a known id, or that nobody knows before the result."""
    if int(root, 16) % 2:
        return engine.start(body.options(workflow_id=root), lines).result(timeout=LONGEST)
    ids = chain([root], iter(new_id, None))
    with patch.object(starts, "new_id", lambda: next(ids)):
        return engine.run(body, lines)


def _compare(engine: Engine, root: str, expected: Expected) -> Iterator[str]:
    found = [one for one in engine.list_workflows(limit=1000) if one.id.startswith(root)]
    try:  # a child that was only read from may take a little longer
        eventually(lambda: all(engine.handle(one.id).status().ended for one in found))
    except AssertionError:
        yield f"it has ended, and not {[one.id for one in found if not engine.handle(one.id).status().ended]}"
        return
    if len(found) != len(expected.streams):
        yield f"there are {len(found)} workflows, not {len(expected.streams)}"
    with psycopg.connect(engine.database_url) as connection:
        written = "SELECT number FROM transacted WHERE starts_with(workflow_id, %s)"
        numbers = [number for (number,) in connection.execute(written, (root,))]
    if sorted(numbers) != sorted(expected.rows):
        yield f"its transactions have written {sorted(numbers)}, and not {sorted(expected.rows)}"
    there: Counter[tuple[str, tuple[int, ...]]] = Counter()
    for one in found:
        for stream in engine.streams.list(one.id, reserved=True):
            if stream.key.startswith(OUTSIDE):
                continue
            values, _ = engine.read_stream(one.id, stream.key, view="committed").read_all()
            there[stream.key, tuple(values)] += 1
    wanted = Counter((key, tuple(values)) for streams in expected.streams for key, values in streams.items())
    if there != wanted:
        yield f"its streams hold {there - wanted}, and should hold {wanted - there}"
