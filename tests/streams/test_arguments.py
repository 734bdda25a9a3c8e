"""What cannot work is refused at the call, with the fix, and not when the first value comes."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from dbosflow import step, streams
from dbosflow.errors import ConfigurationError
from dbosflow.streams import stages

FN_SYNC = ["map", "filter", "flat_map", "take_while", "skip_while"]
FN_ASYNC = ["map_async", "flat_map_async"]


async def async_fn(*values: Any) -> Any:
    return values


async def async_generator(value: Any) -> Any:
    yield value


@step
async def async_step(value: int) -> int:
    return value


@step
def sync_step(value: int) -> int:
    return value


class Callable:
    """An object with an async ``__call__``."""

    async def __call__(self, value: Any) -> Any:
        return value


ASYNC = [async_fn, async_generator, async_step, Callable(), partial(async_fn, 1), partial(async_step, 1)]


@pytest.mark.parametrize("fn", ASYNC)
@pytest.mark.parametrize("name", FN_SYNC)
def test_a_transformer_that_is_given_an_async_function_names_its_async_twin(name: str, fn: Any) -> None:
    twin = {"map": "map_async$", "flat_map": "flat_map_async$"}.get(name, "map_async first$")
    with pytest.raises(ConfigurationError, match=f"is async: use {twin}"):
        getattr(streams, name)([1], fn)
    with pytest.raises(ConfigurationError, match=f"is async: use {twin}"):
        getattr(stages, name)(fn)


def test_an_async_reducer_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="reduce needs a plain function"):
        streams.reduce([1], async_fn, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("fn", [len, str, Callable, sync_step, partial(max, 0), lambda value: value])
def test_a_transformer_takes_any_plain_callable(fn: Any) -> None:
    """Classes, builtins, steps, partials."""
    for name in FN_SYNC:
        getattr(streams, name)([1], fn)


@pytest.mark.parametrize(
    "fn", [async_fn, async_step, Callable(), partial(async_fn, 1), lambda value: async_fn(value, value)]
)
def test_an_async_transformer_takes_any_async_callable(fn: Any) -> None:
    for name in FN_ASYNC:
        getattr(streams, name)([1], fn)


@pytest.mark.parametrize("name", FN_ASYNC)
def test_an_async_generator_function_is_refused_by_transformers(name: str) -> None:
    with pytest.raises(ConfigurationError, match="is an async generator: return an iterable"):
        getattr(streams, name)([1], async_generator)


@pytest.mark.parametrize("name", [*FN_SYNC, *FN_ASYNC])
def test_a_transformer_refuses_what_is_no_function(name: str) -> None:
    for fn in (None, 3, [1]):
        with pytest.raises(ConfigurationError, match="the source comes first, then the function"):
            getattr(streams, name)([1], fn)
    with pytest.raises(ConfigurationError, match="the source comes first"):
        streams.reduce([1], 3, 3)  # type: ignore[call-overload]


@pytest.mark.parametrize("name", ["chunk", "take", "skip"])
@pytest.mark.parametrize("count", [-1, 1.0, "1", None, True])
def test_take_and_skip_refuse_counts_that_are_no_whole_numbers(name: str, count: Any) -> None:
    word, least = ("size", 1) if name == "chunk" else ("count", 0)
    with pytest.raises(ConfigurationError, match=f"{word}={count!r} must be a whole number of at least {least}"):
        getattr(streams, name)([1], count)
    with pytest.raises(ConfigurationError, match=f"{word}="):
        getattr(stages, name)(count)


def test_a_chunk_of_no_values_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="size=0 must be a whole number of at least 1"):
        streams.chunk([1], 0)


@pytest.mark.parametrize("name", FN_ASYNC)
@pytest.mark.parametrize("concurrency", [0, -1, 1.5, None])
def test_a_bound_on_concurrency_is_a_whole_number(name: str, concurrency: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"concurrency=.* must be a whole number of at least 1"):
        getattr(streams, name)([1], async_fn, concurrency=concurrency)


@pytest.mark.parametrize(
    "call",
    [
        lambda source: streams.map(source, str),
        lambda source: streams.map_async(source, async_fn),
        lambda source: streams.flat_map_async(source, async_fn),
        lambda source: streams.take(source, 1),
        streams.collect,
        streams.pipe,
        lambda source: streams.pipe(source, stages.take(1)),
        lambda source: streams.reduce(source, max, 0),
    ],
)
def test_a_transformer_refuses_a_source_that_is_not_iterable(call: Any) -> None:
    with pytest.raises(ConfigurationError, match="give a reader, a channel, an iterable or an async iterable"):
        call(3)
    with pytest.raises(ConfigurationError, match="call it first"):
        call(async_generator)
    coroutine = async_fn()
    with pytest.raises(ConfigurationError, match="await it first"):
        call(coroutine)
    coroutine.close()


def test_a_pipe_refuses_a_stage_that_cannot_be_called() -> None:
    with pytest.raises(ConfigurationError, match="is no stage of a pipe"):
        streams.pipe([1], 3)  # type: ignore[call-overload]
