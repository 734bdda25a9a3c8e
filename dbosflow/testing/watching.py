"""How a test looks over a run's shoulder: what its body asks for, what its steps are given, and what they give."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dbosflow._runtime.hands import Hands
    from dbosflow._runtime.run import Run
    from dbosflow._runtime.scope import Attempt
    from dbosflow.definitions import FunctionDef


class Watch(Protocol):
    """Who watches runs."""

    def skipped(self, run: Run, key: str, producer: str, count: int, text: str) -> None:
        """A replay came by a stream value that is durable."""

    def recalled(self, run: Run, key: str) -> None:
        """The body asked for a record that is there."""

    def called(self, run: Run, key: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """The body of the step ``key`` is about to run."""

    def returned(self, run: Run, key: str, function: FunctionDef, value: Any) -> Any:
        """The body of the step ``key`` has returned ``value``: what its caller gets."""

    def watch(self, run: Run) -> None:
        """Watches a run, whose body has not begun."""
        run.environment = replace(
            run.environment,
            when_skipped=self.skipped,
            loop_hands=cast("Hands", _WatchedHands(run.loop_hands, self)),
            thread_hands=cast("Hands", _WatchedHands(run.thread_hands, self)),
        )


class _WatchedHands:
    """Hands that tell what they do."""

    def __init__(self, hands: Hands, watch: Watch) -> None:
        self._hands = hands
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hands, name)

    async def recall(self, run: Run, key: str) -> None:
        self._watch.recalled(run, key)
        await self._hands.recall(run, key)

    async def give_up(self, run: Run, key: str) -> None:
        self._watch.recalled(run, key)
        await self._hands.give_up(run, key)

    async def call(
        self, attempt: Attempt, function: FunctionDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        self._watch.called(attempt.run, attempt.key, args, kwargs)
        returned = await self._hands.call(attempt, function, args, kwargs)
        return self._watch.returned(attempt.run, attempt.key, function, returned)
