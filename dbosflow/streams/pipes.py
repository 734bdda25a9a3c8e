"""Pipes: a source through several stages."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, overload

from dbosflow.errors import ConfigurationError
from dbosflow.streams.sources import AsyncValues, Transformed, Values, passed

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable

    from dbosflow.streams.readers import StreamChannel

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
G = TypeVar("G")
H = TypeVar("H")
J = TypeVar("J")

Stage: TypeAlias = Callable[[Transformed[A]], Transformed[B]]
"""A function from values of ``A`` to values of ``B``, sync or async like its argument."""

AsyncStage: TypeAlias = Callable[[AsyncValues[A]], Transformed[B]]
"""The same for async values only. Every ``Stage`` is one."""


@overload
def pipe(source: StreamChannel[A], /) -> AsyncValues[A]: ...
@overload
def pipe(source: AsyncIterable[A], /) -> AsyncValues[A]: ...
@overload
def pipe(source: Iterable[A], /) -> Values[A]: ...
@overload
def pipe(source: StreamChannel[A], s1: AsyncStage[A, B], /) -> AsyncValues[B]: ...
@overload
def pipe(source: StreamChannel[A], s1: AsyncStage[A, B], s2: AsyncStage[B, C], /) -> AsyncValues[C]: ...
@overload
def pipe(
    source: StreamChannel[A], s1: AsyncStage[A, B], s2: AsyncStage[B, C], s3: AsyncStage[C, D], /
) -> AsyncValues[D]: ...
@overload
def pipe(
    source: StreamChannel[A], s1: AsyncStage[A, B], s2: AsyncStage[B, C], s3: AsyncStage[C, D], s4: AsyncStage[D, E], /
) -> AsyncValues[E]: ...
@overload
def pipe(
    source: StreamChannel[A],
    s1: AsyncStage[A, B],
    s2: AsyncStage[B, C],
    s3: AsyncStage[C, D],
    s4: AsyncStage[D, E],
    s5: AsyncStage[E, F],
    /,
) -> AsyncValues[F]: ...
@overload
def pipe(
    source: StreamChannel[A],
    s1: AsyncStage[A, B],
    s2: AsyncStage[B, C],
    s3: AsyncStage[C, D],
    s4: AsyncStage[D, E],
    s5: AsyncStage[E, F],
    s6: AsyncStage[F, G],
    /,
) -> AsyncValues[G]: ...
@overload
def pipe(
    source: StreamChannel[A],
    s1: AsyncStage[A, B],
    s2: AsyncStage[B, C],
    s3: AsyncStage[C, D],
    s4: AsyncStage[D, E],
    s5: AsyncStage[E, F],
    s6: AsyncStage[F, G],
    s7: AsyncStage[G, H],
    /,
) -> AsyncValues[H]: ...
@overload
def pipe(
    source: StreamChannel[A],
    s1: AsyncStage[A, B],
    s2: AsyncStage[B, C],
    s3: AsyncStage[C, D],
    s4: AsyncStage[D, E],
    s5: AsyncStage[E, F],
    s6: AsyncStage[F, G],
    s7: AsyncStage[G, H],
    s8: AsyncStage[H, J],
    /,
) -> AsyncValues[J]: ...
@overload
def pipe(source: AsyncIterable[A], s1: AsyncStage[A, B], /) -> AsyncValues[B]: ...
@overload
def pipe(source: AsyncIterable[A], s1: AsyncStage[A, B], s2: AsyncStage[B, C], /) -> AsyncValues[C]: ...
@overload
def pipe(
    source: AsyncIterable[A], s1: AsyncStage[A, B], s2: AsyncStage[B, C], s3: AsyncStage[C, D], /
) -> AsyncValues[D]: ...
@overload
def pipe(
    source: AsyncIterable[A], s1: AsyncStage[A, B], s2: AsyncStage[B, C], s3: AsyncStage[C, D], s4: AsyncStage[D, E], /
) -> AsyncValues[E]: ...
@overload
def pipe(
    source: AsyncIterable[A],
    s1: AsyncStage[A, B],
    s2: AsyncStage[B, C],
    s3: AsyncStage[C, D],
    s4: AsyncStage[D, E],
    s5: AsyncStage[E, F],
    /,
) -> AsyncValues[F]: ...
@overload
def pipe(
    source: AsyncIterable[A],
    s1: AsyncStage[A, B],
    s2: AsyncStage[B, C],
    s3: AsyncStage[C, D],
    s4: AsyncStage[D, E],
    s5: AsyncStage[E, F],
    s6: AsyncStage[F, G],
    /,
) -> AsyncValues[G]: ...
@overload
def pipe(
    source: AsyncIterable[A],
    s1: AsyncStage[A, B],
    s2: AsyncStage[B, C],
    s3: AsyncStage[C, D],
    s4: AsyncStage[D, E],
    s5: AsyncStage[E, F],
    s6: AsyncStage[F, G],
    s7: AsyncStage[G, H],
    /,
) -> AsyncValues[H]: ...
@overload
def pipe(
    source: AsyncIterable[A],
    s1: AsyncStage[A, B],
    s2: AsyncStage[B, C],
    s3: AsyncStage[C, D],
    s4: AsyncStage[D, E],
    s5: AsyncStage[E, F],
    s6: AsyncStage[F, G],
    s7: AsyncStage[G, H],
    s8: AsyncStage[H, J],
    /,
) -> AsyncValues[J]: ...
@overload
def pipe(source: Iterable[A], s1: Stage[A, B], /) -> Values[B]: ...
@overload
def pipe(source: Iterable[A], s1: Stage[A, B], s2: Stage[B, C], /) -> Values[C]: ...
@overload
def pipe(source: Iterable[A], s1: Stage[A, B], s2: Stage[B, C], s3: Stage[C, D], /) -> Values[D]: ...
@overload
def pipe(source: Iterable[A], s1: Stage[A, B], s2: Stage[B, C], s3: Stage[C, D], s4: Stage[D, E], /) -> Values[E]: ...
@overload
def pipe(
    source: Iterable[A], s1: Stage[A, B], s2: Stage[B, C], s3: Stage[C, D], s4: Stage[D, E], s5: Stage[E, F], /
) -> Values[F]: ...
@overload
def pipe(
    source: Iterable[A],
    s1: Stage[A, B],
    s2: Stage[B, C],
    s3: Stage[C, D],
    s4: Stage[D, E],
    s5: Stage[E, F],
    s6: Stage[F, G],
    /,
) -> Values[G]: ...
@overload
def pipe(
    source: Iterable[A],
    s1: Stage[A, B],
    s2: Stage[B, C],
    s3: Stage[C, D],
    s4: Stage[D, E],
    s5: Stage[E, F],
    s6: Stage[F, G],
    s7: Stage[G, H],
    /,
) -> Values[H]: ...
@overload
def pipe(
    source: Iterable[A],
    s1: Stage[A, B],
    s2: Stage[B, C],
    s3: Stage[C, D],
    s4: Stage[D, E],
    s5: Stage[E, F],
    s6: Stage[F, G],
    s7: Stage[G, H],
    s8: Stage[H, J],
    /,
) -> Values[J]: ...
def pipe(source: Any, *given: Any) -> Any:
    """Passes ``source`` through each of the stages: ``pipe(reader, stages.map(str.strip), stages.chunk(10))``.

    A stage is one of ``dbosflow.streams.stages``, or a function that is made of them. Type checkers follow the types
    through up to eight stages. If one of the stages is async, the source must be async, too:
    ``pipe(map_async(reader, fn), ...)`` makes it so.

    Raises:
        ConfigurationError: a stage is no function of one argument.
    """
    for stage in given:
        if not callable(stage):
            msg = f"{stage!r} is no stage of a pipe: give a function of one argument, such as stages.map(...)"
            raise ConfigurationError(msg)
    return reduce(lambda values, stage: stage(values), given, passed(source))
