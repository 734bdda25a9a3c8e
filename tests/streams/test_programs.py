"""Random pipelines give what the same operations give on plain lists, in every colour and also where a source fails."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import streams
from dbosflow.errors import StreamFailedError
from dbosflow.streams import stages

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.streams.colours import Colour

FAILURE = StreamFailedError("w", "k", "the workflow failed")
PROGRAMS = 100

Operation = tuple[str, Any, "Callable[[list[Any]], list[Any]]"]


def size(value: Any) -> int:
    return value if isinstance(value, int) else sum(map(size, value))


def operation(chance: random.Random, *, asynchronous: bool) -> Operation:
    """A stage, and what it does to a list."""
    number, odds = chance.randrange(6), chance.randrange(2, 5)

    def fn(value: Any) -> int:
        return size(value) + number

    def several(value: Any) -> list[Any]:
        return [value] * (size(value) % odds)

    def test(value: Any) -> bool:
        return size(value) % odds != 0

    async def fn_async(value: Any) -> int:
        for _ in range(size(value) * 7 % odds):
            await asyncio.sleep(0)
        return fn(value)

    async def several_async(value: Any) -> list[Any]:
        return several(value)

    operations: list[Operation] = [
        ("map", stages.map(fn), lambda values: [fn(value) for value in values]),
        ("filter", stages.filter(test), lambda values: [value for value in values if test(value)]),
        ("flat_map", stages.flat_map(several), lambda values: [part for value in values for part in several(value)]),
        ("take", stages.take(number * 5), lambda values: values[: number * 5]),
        ("skip", stages.skip(number), lambda values: values[number:]),
        ("take_while", stages.take_while(test), lambda values: list(itertools.takewhile(test, values))),
        ("skip_while", stages.skip_while(test), lambda values: list(itertools.dropwhile(test, values))),
        ("chunk", stages.chunk(odds), lambda values: [values[i : i + odds] for i in range(0, len(values), odds)]),
    ]
    if asynchronous:
        operations += [
            ("map_async", stages.map_async(fn_async, concurrency=odds - 1), operations[0][2]),
            ("flat_map_async", stages.flat_map_async(several_async, concurrency=odds - 1), operations[2][2]),
        ]
    return chance.choice(operations)


@pytest.mark.parametrize("fails", [False, True])
def test_random_pipelines_do_what_lists_do(colour: Colour, fails: bool) -> None:  # noqa: FBT001 (a parameter)
    """A failing source gives the same values before its error; where a stage had enough, the error is never met."""
    failed = 0
    for seed in range(PROGRAMS):
        chance = random.Random(seed)
        given = [chance.randrange(10) for _ in range(chance.randrange(30))]
        program = [operation(chance, asynchronous=colour.asynchronous) for _ in range(chance.randrange(7))]
        expected: list[Any] = given
        for _, _, on_lists in program:
            expected = on_lists(expected)
        names = f"program {seed}: {[name for name, _, _ in program]} over {given}"

        source = colour.source(given, FAILURE if fails else None)
        build: Any = streams.pipe
        came, error = colour.read_to_either_end(build(source, *(stage for _, stage, _ in program)))
        assert came == expected, names
        assert source.closings == 1, names
        early = {name for name, _, _ in program} & {"take", "take_while"}
        assert error is (FAILURE if fails and not early else error and FAILURE), names
        failed += error is not None
    assert (failed > PROGRAMS / 3) is fails
