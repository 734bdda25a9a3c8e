"""Steps: functions whose outcomes are recorded, so that a recovered workflow does not run them again."""

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
    """A function decorated with ``@step``.

    In a workflow a call is a durable operation: its outcome is recorded, and a replay returns it from there. Anywhere
    else it is a plain call. Sync workflows call sync steps like any function, and async workflows async ones; ``run``
    and ``run_async`` are for the other combinations.
    """

    def __init__(self, definition: StepDef, receiver: tuple[Any, ...] = ()) -> None:
        self.definition = definition
        self._receiver = receiver
        update_wrapper(self, definition.function, updated=())
        if definition.is_async:
            mark_async(self, definition.function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs the step and records its outcome; a replay returns the recorded one.

        Raises:
            Exception: the exception of the step's last attempt.
            StepFailedError: the step failed, and its own exception cannot be rebuilt from the record.
            WrongColourError: the caller is a sync workflow and the step is async, or the reverse. Use ``run`` or
                ``run_async``.
            SerializationError: JSON cannot carry the result under its annotation.
            BranchError: the caller is no branch of its workflow.
        """
        result: R = calls.call_step(self.definition, self._receiver + args, kwargs)
        return result

    def run(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs the step from sync code, whether the step is sync or async. Its awaitable twin is ``run_async``.

        Raises:
            Exception: the exception of the step's last attempt, or the other errors of a call.
            BlockingCallError: an event loop runs in the calling thread.
        """
        result: T = calls.run_step(
            self.definition, self._receiver + args, kwargs, f"await {self.definition.name}.run_async(...)"
        )
        return result

    def run_async(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        """Runs the step from async code, whether the step is async or sync. A sync body runs in the thread pool.

        The result is a coroutine: await it, or make a task of it. Raises what a call raises.
        """
        return calls.run_step_async(self.definition, self._receiver + args, kwargs)

    @overload
    def __get__(self, instance: None, owner: type) -> Step[P, R, T]: ...
    @overload
    def __get__(self: Step[Concatenate[Any, Q], R, T], instance: object, owner: type) -> Step[Q, R, T]: ...
    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Binds a method to its instance or class. A step that is bound already stays so."""
        method = self.definition.method
        if self._receiver or method is staticmethod:
            return self
        receiver = (owner or type(instance)) if method is classmethod else instance
        return self if receiver is None else Step(self.definition, (receiver,))

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickles the step by reference, like the function: by its name, or as a bound method."""
        return reference_to(self, self._receiver)

    def __repr__(self) -> str:
        return f"<{self.definition}>"


class StepDecorator:
    """The result of ``@step(...)``: a decorator that has the options."""

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
    """Makes a function a step: its body runs at least once, its outcome is recorded once and never changes.

    Args:
        function: a sync or async function, or a method of any kind. Its arguments may be anything; JSON must be able
            to carry the result under its annotation.
        name: the name in records. Default: the function's own. If a step is renamed, running workflows run it again.
        max_attempts: how often the body is tried if it raises.
        interval: seconds before the second attempt.
        backoff: the factor, at least 1, by which each further wait is longer than the one before.
        max_interval: the longest wait, in seconds.
        retry_on: the exceptions that are worth another attempt: one class, or several.

    Raises:
        DefinitionError: the function cannot be a step: it is a class, a generator function, or decorated already.
        ConfigurationError: an option is not valid.
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
    """Runs any callable as a step from sync code, lambdas and library functions included.

    ``run_step("fetch", client.get, url)`` runs ``client.get(url)`` once and records its result. See
    ``run_step_async``, its awaitable twin, for the arguments and errors.

    Raises:
        BlockingCallError: an event loop runs in the calling thread.
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

    ``await run_step_async("fetch", client.get, url)``. A sync callable runs in the thread pool. If it returns an
    awaitable, as ``lambda: client.get(url)`` does with an async client, that is awaited.

    Args:
        name: the step's name in records.
        function: the callable. JSON must be able to carry its result.
        args: its positional arguments.
        kwargs: its keyword arguments.

    Raises:
        Exception: the exception of the callable.
        StepFailedError: the callable failed, and its own exception cannot be rebuilt from the record.
        SerializationError: JSON cannot carry the result.
        DefinitionError: ``function`` is not callable, or is a generator function.
        BranchError: the caller is no branch of its workflow.
    """
    return calls.run_step_async(_ad_hoc(name, function), args, kwargs)


def _ad_hoc(name: str, function: Any) -> StepDef:
    own_name = check_name("step", name)
    if not callable(function):
        msg = f"step {own_name!r} needs a function, and its arguments behind it; {function!r} is none"
        raise DefinitionError(msg)
    check_no_generator("step", function)
    return StepDef(function, own_name)
