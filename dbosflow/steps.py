"""Steps: functions whose outcomes are recorded, so that a recovered workflow never runs them again."""

from __future__ import annotations

from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from dbosflow._runtime.operations import calls
from dbosflow.definitions import StepDef, caller_locals, check_name
from dbosflow.errors import DefinitionError
from dbosflow.functions import check_decorated, check_no_generator, local_name, mark_async, reference_to, unbound
from dbosflow.retries import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")
Result = TypeVar("Result")


class Step(Generic[P, R, T]):
    """A decorated function. Called in a workflow it is a durable operation; anywhere else a plain call.

    In a workflow of its own colour it is called like the function that it is. ``run`` and ``run_async`` are for
    the other colour.
    """

    def __init__(self, definition: StepDef, receiver: tuple[Any, ...] = ()) -> None:
        self.definition = definition
        self._receiver = receiver
        update_wrapper(self, definition.function, updated=())
        if definition.is_async:
            mark_async(self, definition.function)

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
        """A step that is a method takes its instance along, or its class; one that is bound stays so."""
        method = self.definition.method
        if self._receiver or method is staticmethod:
            return self
        receiver = (owner or type(instance)) if method is classmethod else instance
        return self if receiver is None else Step(self.definition, (receiver,))

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickled by reference, as the function that it stands for would be: by its name, or as a bound method."""
        return reference_to(self, self._receiver)

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
    retry_on: type[BaseException] | Sequence[type[BaseException]] = Exception,
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
    retry_on: type[BaseException] | Sequence[type[BaseException]] = Exception,
) -> Any:
    """Makes a function a step: its body runs at least once, its outcome is recorded at most once, and never changes.

    Args:
        function: sync or async, or a method of any kind; arguments may be anything, the result must be JSON under its
            annotation.
        name: in records; the function's own by default. Renaming a step makes running workflows run it again.
        max_attempts: how often the body is tried when it raises.
        interval: seconds before the second attempt; each further wait is ``backoff`` times as long.
        backoff: at least 1.
        max_interval: the longest wait, in seconds.
        retry_on: which exceptions are worth another attempt: a class, or several.

    Raises:
        DefinitionError: it is no function that could be a step: a class, a generator function, one that is decorated
            already.
        ConfigurationError: an option cannot be what it is.
    """
    kinds = tuple(retry_on) if isinstance(retry_on, list | tuple | set | frozenset) else (retry_on,)
    retry = RetryPolicy(
        max_attempts=max_attempts, interval=interval, backoff=backoff, max_interval=max_interval, retry_on=kinds
    )
    if function is None:
        return StepDecorator(name, retry)
    return _make(function, name, retry)


def _make(decorated: Any, name: str | None, retry: RetryPolicy) -> Step[..., Any, Any]:
    function, method = unbound(decorated)
    check_decorated("step", function)
    own_name = check_name("step", local_name(function) if name is None else name)
    return Step(StepDef(function, own_name, caller_locals(function, depth=2), method, retry))


@overload
def run_step(name: str, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
@overload
def run_step(name: str, function: Callable[P, Result], /, *args: P.args, **kwargs: P.kwargs) -> Result: ...
def run_step(name: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Runs any callable as a step, lambdas and library functions included, from sync code.

    ``run_step("fetch", client.get, url)``; ``run_step_async`` is its awaitable twin.
    """
    return calls.run_step(_ad_hoc(name, function), args, kwargs, "await run_step_async(...)")


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

    ``await run_step_async("fetch", client.get, url)``. A sync one goes to the thread pool; what it gives is awaited, if
    it can be: ``lambda: client.get(url)`` may be of an async client.
    """
    return calls.run_step_async(_ad_hoc(name, function), args, kwargs)


def _ad_hoc(name: str, function: Any) -> StepDef:
    own_name = check_name("step", name)
    if not callable(function):
        msg = f"step {own_name!r} needs a function, and its arguments behind it; {function!r} is none"
        raise DefinitionError(msg)
    check_no_generator("step", function)
    return StepDef(function, own_name)
