"""Transformers read no more than they need, hand errors on behind the values before them, and close their source."""

from __future__ import annotations

import gc
import itertools
import operator
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import streams
from dbosflow.errors import StreamFailedError
from dbosflow.streams import AsyncValues, Transformed, Values, stages

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.streams.colours import Colour

FAILURE = StreamFailedError("w", "k", "the workflow failed")


def even(value: int) -> bool:
    return value % 2 == 0


def small(value: int) -> bool:
    return value < 3


def twice(value: int) -> list[int]:
    return [value, value]


EACH: dict[str, tuple[Callable[[Any], Any], list[Any]]] = {
    # over 0 1 2 3 4
    "map": (lambda source: streams.map(source, str), ["0", "1", "2", "3", "4"]),
    "filter": (lambda source: streams.filter(source, even), [0, 2, 4]),
    "flat_map": (lambda source: streams.flat_map(source, twice), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]),
    "chunk": (lambda source: streams.chunk(source, 2), [[0, 1], [2, 3], [4]]),
    "take": (lambda source: streams.take(source, 9), [0, 1, 2, 3, 4]),
    "skip": (lambda source: streams.skip(source, 2), [2, 3, 4]),
    "take_while": (lambda source: streams.take_while(source, lambda _: True), [0, 1, 2, 3, 4]),
    "skip_while": (lambda source: streams.skip_while(source, small), [3, 4]),
    "pipe": (lambda source: streams.pipe(source, stages.filter(even), stages.map(str)), ["0", "2", "4"]),
}

each = pytest.mark.parametrize(("transform", "expected"), EACH.values(), ids=EACH)


@each
def test_each_transformer_gives_its_values_and_closes_its_source_at_the_end(
    colour: Colour, transform: Any, expected: list[Any]
) -> None:
    """To the end; the source is closed there, once, and further calls say that it is the end."""
    source = colour.source(range(5))
    values = transform(source)
    assert isinstance(values, Values | AsyncValues)
    assert colour.read(values) == expected
    assert source.closings == 1
    assert colour.read(values) == []
    colour.close(values)
    assert source.closings == 1


@each
def test_a_transformer_reads_nothing_before_it_is_asked_for_a_value(
    colour: Colour, transform: Any, expected: list[Any]
) -> None:
    source = colour.source(range(5))
    values = transform(source)
    assert (source.pulled, source.closings) == (0, 0)
    colour.close(values)
    assert (source.pulled, source.closings) == (0, 1)
    assert colour.read(values) == []


@each
def test_an_infinite_source_is_read_only_as_far_as_needed(colour: Colour, transform: Any, expected: list[Any]) -> None:
    """For one value. Closed there, it closes the source."""
    source = colour.source(itertools.count())
    values = transform(source)
    assert colour.next(values) == expected[0]
    needed = {"chunk": 2, "skip": 3, "skip_while": 4}
    assert source.pulled == next((needed[name] for name in needed if EACH[name][0] is transform), 1)
    assert source.closings == 0
    colour.close(values)
    assert source.closings == 1
    assert colour.read(values) == []


@each
def test_a_transformer_that_is_dropped_half_way_closes_its_source(
    colour: Colour, transform: Any, expected: list[Any]
) -> None:
    """Also where somebody else holds the source; without a cycle that the collector must find."""
    source = colour.source(itertools.count())
    values = transform(source)
    colour.next(values)
    gc.disable()
    try:
        del values
        colour.settle()
        assert source.closings == 1
    finally:
        gc.enable()


@each
def test_the_end_of_a_bad_stream_comes_behind_its_values(colour: Colour, transform: Any, expected: list[Any]) -> None:
    """Once; then it is over, and the source is closed."""
    source = colour.source(range(5), FAILURE)
    values = transform(source)
    came, error = colour.read_until_error(values)
    assert (came, error) == (expected, FAILURE)
    assert source.closings == 1
    assert colour.read(values) == []


def broken(value: int) -> Any:
    if value == 2:
        raise LookupError(value)
    return True


def breaking_up(value: int) -> list[int]:
    return [broken(value) and value]


@pytest.mark.parametrize(
    ("transform", "before"),
    [
        (lambda source: streams.map(source, broken), [True, True]),
        (lambda source: streams.filter(source, broken), [0, 1]),
        (lambda source: streams.flat_map(source, breaking_up), [0, 1]),
        (lambda source: streams.take_while(source, broken), [0, 1]),
        (lambda source: streams.skip_while(source, broken), []),
        (lambda source: streams.pipe(source, stages.map(broken), stages.chunk(5)), [[True, True]]),
    ],
)
def test_an_error_of_a_function_comes_in_its_values_place(colour: Colour, transform: Any, before: list[Any]) -> None:
    """The source is closed and not read on."""
    source = colour.source(range(5))
    came, error = colour.read_until_error(transform(source))
    assert came == before
    assert isinstance(error, LookupError)
    assert (source.pulled, source.closings) == (3, 1)


def stopping(value: int) -> Any:
    if value == 2:
        raise StopIteration
    return [value]


@pytest.mark.parametrize("name", ["map", "filter", "flat_map", "take_while", "skip_while"])
def test_a_stray_stop_iteration_of_a_function_is_no_end_of_a_stream(colour: Colour, name: str) -> None:
    """As the built-in ``map`` takes it for one, and drops what follows."""
    values = getattr(streams, name)(colour.source(range(5)), stopping)
    assert isinstance(colour.read_until_error(values)[1], RuntimeError)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_take_never_reads_the_value_behind_its_last(colour: Colour, count: int) -> None:
    """It may never come. Nor does it meet the error there."""
    source = colour.source(range(count), FAILURE)
    assert colour.read(streams.take(source, count)) == list(range(count))
    assert (source.pulled, source.closings) == (count, 1)


def test_take_while_reads_the_value_that_ends_it(colour: Colour) -> None:
    source = colour.source(itertools.count())
    assert colour.read(streams.take_while(source, small)) == [0, 1, 2]
    assert (source.pulled, source.closings) == (4, 1)


def test_skip_while_asks_its_function_no_more_once_it_has_begun(colour: Colour) -> None:
    source = colour.source([0, 5, 1, 6])
    assert colour.read(streams.skip_while(source, small)) == [5, 1, 6]


def test_a_chunk_that_is_full_at_the_end_has_no_empty_one_behind(colour: Colour) -> None:
    assert colour.read(streams.chunk(colour.source(range(4)), 2)) == [[0, 1], [2, 3]]
    assert colour.read(streams.chunk(colour.source([]), 2)) == []


def test_values_of_any_kind_go_through_transformers(colour: Colour) -> None:
    """Also those that look like an end."""
    given: list[Any] = [None, False, 0, "", [], StopIteration(), Ellipsis]
    assert colour.read(streams.map(colour.source(given), lambda value: value)) == given
    assert colour.read(streams.chunk(colour.source(given), 3)) == [given[:3], given[3:6], given[6:]]


def test_collect_gives_a_list(colour: Colour) -> None:
    source = colour.source(range(4))
    assert colour.get(streams.collect(source)) == [0, 1, 2, 3]
    assert source.closings == 1
    assert colour.get(streams.collect(streams.take(colour.source(itertools.count()), 2))) == [0, 1]


def test_reduce_folds_from_the_left(colour: Colour) -> None:
    source = colour.source("abc")
    assert colour.get(streams.reduce(source, operator.add, "-")) == "-abc"
    assert source.closings == 1
    assert colour.get(streams.reduce(colour.source([]), operator.add, 7)) == 7


@pytest.mark.parametrize("gather", [streams.collect, lambda source: streams.reduce(source, operator.add, 0)])
def test_a_bad_stream_never_looks_like_a_whole_one(colour: Colour, gather: Any) -> None:
    source = colour.source(range(3), FAILURE)
    with pytest.raises(StreamFailedError):
        colour.get(gather(source))
    assert source.closings == 1


def test_an_error_of_a_reducer_closes_the_source(colour: Colour) -> None:
    source = colour.source(itertools.count())
    with pytest.raises(TypeError):
        colour.get(streams.reduce(source, operator.add, "text"))
    assert (source.pulled, source.closings) == (1, 1)


def test_a_pipe_of_no_stages_gives_the_values(colour: Colour) -> None:
    assert colour.read(streams.pipe(colour.source(range(3)))) == [0, 1, 2]


def test_stages_make_a_stage(colour: Colour) -> None:
    """A function that is made of stages is one, and types are followed through it."""

    def lengths(lines: Transformed[str]) -> Transformed[int]:
        return stages.map(len)(stages.flat_map(str.split)(lines))

    source = colour.source(["a word", "and another"])
    assert colour.read(streams.pipe(source, lengths, stages.take(3))) == [1, 4, 3]
    assert source.closings == 1


def test_a_stage_can_be_used_again(colour: Colour) -> None:
    pairs = stages.chunk(2)
    for _ in range(2):
        assert colour.read(streams.pipe(colour.source(range(3)), pairs)) == [[0, 1], [2]]


def test_a_chain_closes_down_to_its_source(colour: Colour) -> None:
    source = colour.source(itertools.count())
    values = streams.pipe(source, stages.map(str), stages.chunk(2), stages.flat_map(list), stages.skip(1))
    assert colour.next(values) == "1"
    colour.close(values)
    assert (source.pulled, source.closings) == (2, 1)


def test_a_with_block_closes_what_it_leaves(colour: Colour) -> None:
    source = colour.source(itertools.count())
    colour.leave_after_one(streams.map(source, str))
    assert source.closings == 1
