"""Steps: functions whose outcomes are recorded, so that a recovered workflow never runs them again."""

from __future__ import annotations

from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from dbosflow._runtime import calls
from dbosflow.definitions import RetryPolicy, StepDef, caller_locals, check_name, local_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")
Result = TypeVar("Result")


class Step(Generic[P, R, T]):
    """A decorated function. Called in a workflow it is a durable operation; anywhere else a plain call.

    In a workflow of its own colour it is called like the function that it is. :meth:`run` and :meth:`run_async` are for
    the other colour.
    """

    def __init__(self, definition: StepDef, receiver: tuple[Any, ...] = ()) -> None:
        self.definition = definition
        self._receiver = receiver
        update_wrapper(self, definition.function, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs the step; on replay gives what it gave."""
        result: R = calls.call_step(self.definition, self._receiver + args, kwargs)
        return result

    def run(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Blocking: runs the step from sync code, whichever colour it has."""
        result: T = calls.run_step(
            self.definition, self._receiver + args, kwargs, f"await {self.definition.name}.run_async(...)"
        )
        return result

    def run_async(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        """Awaitable: runs the step from async code, whichever colour it has; a sync body goes to the thread pool."""
        return calls.run_step_async(self.definition, self._receiver + args, kwargs)

    @overload
    def __get__(self, instance: None, owner: type) -> Step[P, R, T]: ...
    @overload
    def __get__(self: Step[Concatenate[Any, Q], R, T], instance: object, owner: type) -> Step[Q, R, T]: ...
    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """A step that is a method takes its instance along."""
        return self if instance is None else Step(self.definition, (instance,))

    def __repr__(self) -> str:
        return f"<{self.definition}>"


class StepDecorator:
    """What ``@step(...)`` gives: decorates with the options."""

    def __init__(self, name: str | None, retry: RetryPolicy) -> None:
        self._name = name
        self._retry = retry

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, T]]) -> Step[P, Coroutine[Any, Any, T], T]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> Step[P, R, R]: ...
    def __call__(self, function: Callable[..., Any]) -> Step[..., Any, Any]:
        """Makes ``function`` a step."""
        return _make(function, self._name, self._retry)


@overload
def step(function: Callable[P, Coroutine[Any, Any, T]], /) -> Step[P, Coroutine[Any, Any, T], T]: ...
@overload
def step(function: Callable[P, R], /) -> Step[P, R, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    max_attempts: int = 1,
    interval: float = 1.0,
    backoff: float = 2.0,
    max_interval: float = 60.0,
    retry_on: type[Exception] | tuple[type[Exception], ...] = Exception,
) -> StepDecorator: ...
def step(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    max_attempts: int = 1,
    interval: float = 1.0,
    backoff: float = 2.0,
    max_interval: float = 60.0,
    retry_on: type[Exception] | tuple[type[Exception], ...] = Exception,
) -> Any:
    """Makes a function a step: its body runs at least once, its outcome is recorded at most once, and never changes.

    Args:
        function: sync or async; arguments may be anything, the result must be JSON under its annotation.
        name: in records; the function's own by default. Renaming a step makes running workflows run it again.
        max_attempts: how often the body is tried when it raises.
        interval: seconds before the second attempt; each further wait is ``backoff`` times as long.
        backoff: at least 1.
        max_interval: the longest wait, in seconds.
        retry_on: which exceptions are worth another attempt.
    """
    kinds = retry_on if isinstance(retry_on, tuple) else (retry_on,)
    retry = RetryPolicy(
        max_attempts=max_attempts, interval=interval, backoff=backoff, max_interval=max_interval, retry_on=kinds
    )
    if function is None:
        return StepDecorator(name, retry)
    return _make(function, name, retry)


def _make(function: Callable[..., Any], name: str | None, retry: RetryPolicy) -> Step[..., Any, Any]:
    own_name = check_name("step", local_name(function) if name is None else name)
    return Step(StepDef(function, own_name, caller_locals(function, depth=2), retry))


@overload
def run_step(name: str, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
@overload
def run_step(name: str, function: Callable[P, Result], /, *args: P.args, **kwargs: P.kwargs) -> Result: ...
def run_step(name: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Blocking twin of :func:`run_step_async`."""
    definition = StepDef(function, check_name("step", name))
    return calls.run_step(definition, args, kwargs, "await run_step_async(...)")


@overload
def run_step_async(
    name: str, function: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
) -> Coroutine[Any, Any, T]: ...
@overload
def run_step_async(
    name: str, function: Callable[P, Result], /, *args: P.args, **kwargs: P.kwargs
) -> Coroutine[Any, Any, Result]: ...
def run_step_async(name: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
    """Runs any callable as a step, lambdas and library functions included.

    ``await run_step_async("fetch", client.get, url)``
    """
    return calls.run_step_async(StepDef(function, check_name("step", name)), args, kwargs)
