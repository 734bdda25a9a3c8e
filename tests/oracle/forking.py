"""Forks of random programs from turns of theirs: each comes to what the plan says, with the streams of the original."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tests.oracle import programs
from tests.oracle.answers import ENGINE
from tests.oracle.expected import OUTSIDE, evaluate
from tests.oracle.plans import plan
from tests.oracle.trial import LONGEST, make_table
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbosflow import Engine

TURNS = 8
"""Forks of a program at most, from turns at random."""


def attempt_forks(engine: Engine, seed: int) -> list[str]:
    """What is wrong with the forks of the program of a seed."""
    make_table(engine.database_url)
    is_async, lines = plan(seed)
    right, chance = evaluate(lines).result, random.Random(seed)
    ENGINE[:] = [engine]
    body = programs.carry_out_async if is_async else programs.carry_out
    root = uuid4().hex
    result: Any = engine.start(body.options(workflow_id=root), lines).result(timeout=LONGEST)
    assert result == right
    children = [one.id for one in engine.list_workflows(limit=1000) if one.id.startswith(root)]
    eventually(lambda: all(engine.handle(one).status().ended for one in children))
    records = engine.list_steps(root)
    last = max([record.turn for record in records], default=-1)
    continued = max([record.turn for record in records if record.kind == "continued"], default=-1)
    turns = range(continued + 1, last + 2)
    wrong = []
    for turn in turns if len(turns) <= TURNS else sorted(chance.sample(turns, TURNS)):
        fork = engine.workflows.fork(root, from_turn=turn).handle
        try:
            result = fork.result(timeout=LONGEST)
        except Exception as error:  # noqa: BLE001 (any is a finding)
            wrong.append(f"program {seed}, a fork from turn {turn}: {type(error).__name__}: {error}")
            continue
        if result != right:
            wrong.append(f"program {seed}, a fork from turn {turn}: gave {result}, not {right}")
        wrong += [
            f"program {seed}, a fork from turn {turn}: {one}" for one in _differences(engine, root, fork.workflow_id)
        ]
    engine.prune(older_than=0)
    return wrong


def _differences(engine: Engine, root: str, fork: str) -> Iterator[str]:
    streams = [_committed(engine, one) for one in (fork, root)]
    if streams[0] != streams[1]:
        yield f"its streams hold {streams[0]}, and should hold {streams[1]}"


def _committed(engine: Engine, workflow_id: str) -> dict[str, list[Any]]:
    return {
        stream.key: engine.read_stream(workflow_id, stream.key, view="committed").read_all()[0]
        for stream in engine.streams.list(workflow_id, reserved=True)
        if not stream.key.startswith(OUTSIDE)
    }
