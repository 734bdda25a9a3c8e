"""Plans: random programs whose outcome follows from the plan alone, whatever is under way at what time.

A plan is lines, a line is a list, so it travels as JSON: it is the argument of the workflow that carries it out. Each
branch writes to streams of its own, and nothing that races is looked at before all of it is over.
"""

from __future__ import annotations

import random
from typing import Any

Line = list[Any]
Plan = list[Line]

LEAVES = (
    *("step", "step", "relaxed", "relaxed", "flaky", "failing", "sleep", "late", "scoped"),
    *("write", "write", "many", "flush", "emitted", "close", "in_step", "inputs", "changed", "draw"),
    *("mail", "late_mail", "tell", "saga", "token", "asked", "transaction"),
)
"""Lines without lines of their own. Each has a number."""
QUICK = ("relaxed", "write", "many", "draw")
"""Such lines that wait for nothing, with even numbers."""
TIMERS = ("close_call", "durable_close_call", "deadline")
"""Such lines of async plans. Whether a timer or a step is faster is chance, and comes to the same."""
CHILDREN = ("call", "call", "other_colour", "start", "by_id", "engine", "read", "each", "failing_child")
"""Lines with a plan for a child workflow."""
BRANCHES = (
    "gather",
    "group",
    "in_time",
    "shield",
    "race",
    "waited",
    "region",
    "children",
    "children",
    "mapped",
    "completed",
)
"""Lines of async plans, with plans for branches, or for children that are branches."""

AGAIN = "again"
"""A line of a workflow's own, and of no branch: what follows is carried out by its next iteration."""

DEEPEST = 2


def plan(seed: int) -> tuple[bool, Plan]:
    """Whether the program of this seed is async, and its plan."""
    chance = random.Random(seed)
    is_async = chance.random() < 0.7
    return is_async, _continued(seed, _lines(chance, is_async, depth=0, most=6))


def _lines(chance: random.Random, is_async: bool, *, depth: int, most: int = 3) -> Plan:  # noqa: FBT001
    kinds: tuple[str, ...] = (*LEAVES, *TIMERS) if is_async else LEAVES
    if depth < DEEPEST:
        kinds = (*kinds, *CHILDREN, *((*BRANCHES, *BRANCHES) if is_async else ("mapped",)))
    return [_line(chance, chance.choice(kinds), is_async, depth) for _ in range(chance.randint(1, most))]


def _continued(seed: int, lines: Plan) -> Plan:
    """The plan of a workflow that is continued as new now and then; the other lines of a seed stay as they are."""
    chance = random.Random(f"again {seed}")
    found: Plan = []
    for line in lines:
        kind, number, *more = line
        if kind in CHILDREN:
            more[-1] = _continued(seed + number, more[-1])
        found.append([kind, number, *more])
        if chance.random() < 0.25:
            found.append([AGAIN, number])
    return found


def _line(chance: random.Random, kind: str, is_async: bool, depth: int) -> Line:  # noqa: FBT001
    number = chance.randint(1, 5)
    if kind in CHILDREN:
        colours = {"call": is_async, "failing_child": is_async, "other_colour": not is_async}
        of_async = colours.get(kind, chance.random() < 0.5)
        return [kind, number, of_async, _child(chance, of_async, depth=depth + 1)]
    if kind in BRANCHES:
        return [kind, number, [_child(chance, is_async, depth=depth + 1) for _ in range(chance.randint(1, 3))]]
    return [kind, number]


def _child(chance: random.Random, is_async: bool, *, depth: int) -> Plan:  # noqa: FBT001
    """The plan of a child or a branch: of some nothing, or nothing that waits, so that they end at once."""
    kind = chance.random()
    if kind < 0.25:
        return [] if kind < 0.1 else _quick(random.Random(kind))
    return _lines(chance, is_async, depth=depth)


def _quick(chance: random.Random) -> Plan:
    return [[chance.choice(QUICK), 2 * chance.randint(1, 2)] for _ in range(chance.randint(1, 4))]
