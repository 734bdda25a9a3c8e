"""Steps: functions whose outcomes are recorded, so that a recovered workflow does not run them again."""

from __future__ import annotations

from functools import update_wrapper
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    TypedDict,
    TypeVar,
    TypeVarTuple,
    Unpack,
    cast,
    overload,
)

from dbosflow._runtime.operations import calls
from dbosflow.definitions import StepDef, check_name
from dbosflow.errors import ConfigurationError, DefinitionError
from dbosflow.functions import (
    caller_locals,
    check_decorated,
    check_no_generator,
    local_name,
    mark_async,
    reference_to,
    unbound,
)
from dbosflow.retries import ONCE, RetryOn, retry_policy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")
Result = TypeVar("Result")
Ts = TypeVarTuple("Ts")


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

    @property
    def parts(self) -> tuple[StepDef, tuple[Any, ...]]:
        """The definition, and the arguments that binding has given already."""
        return self.definition, self._receiver

    def __repr__(self) -> str:
        return f"<{self.definition}>"


class StepDecorator:
    """The result of ``@step(...)``: a decorator that has the options."""

    def __init__(self, name: str | None, options: Mapping[str, Any]) -> None:
        self._name = name
        self._options = options

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, T]]) -> Step[P, Coroutine[Any, Any, T], T]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> Step[P, R, R]: ...
    def __call__(self, function: Callable[..., Any]) -> Step[..., Any, Any]:
        """Makes ``function`` a step."""
        return _make(function, self._name, self._options)


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
    jitter: float = 0.0,
    retry_on: RetryOn = Exception,
    timeout: float | None = None,
    relaxed: bool = False,
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
    jitter: float = 0.0,
    retry_on: RetryOn = Exception,
    timeout: float | None = None,
    relaxed: bool = False,
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
        jitter: the fraction, from 0 to 1, by which each wait is made longer or shorter at random: 0.2 makes 8 to 12
            seconds of 10. The wait is on record, and a crash does not draw it anew.
        retry_on: the exceptions that are worth another attempt: one class, or several; or a sync function that gets
            the ``Exception`` of a failed attempt and says whether. What that function raises is the step's outcome.
            An attempt that raises ``NonRetryableError`` or ``RetryAfter`` has decided it already.
        timeout: seconds that one attempt of an async step may take. One that takes longer is cancelled, and fails with
            ``StepTimeoutError``, which is retried like any other failure. Sync functions cannot have one: no thread can
            be ended.
        relaxed: whether the workflow goes on without a wait for the commit of the outcome, many times faster. A crash
            then forgets the last few outcomes of such steps, all from some moment on. They run again, and may come to
            something else. Nothing that others can see was made of what is forgotten: not the arguments of an
            ordinary step, nor a child, a message, a value in a stream, or the result. So it is for functions that
            compute, that only read, or that do no harm when they run twice, with other arguments; not for effects.

    Raises:
        DefinitionError: the function cannot be a step: it is a class, a generator function, or decorated already; or
            it is sync and has a timeout.
        ConfigurationError: an option is not valid.
    """
    retry = retry_policy(
        max_attempts=max_attempts,
        interval=interval,
        backoff=backoff,
        max_interval=max_interval,
        jitter=jitter,
        retry_on=retry_on,
    )
    options = {"retry": retry, "timeout": timeout, "relaxed": relaxed}
    return StepDecorator(name, options) if function is None else _make(function, name, options)


def _make(decorated: Any, name: str | None, options: Mapping[str, Any]) -> Step[..., Any, Any]:
    function, method = unbound(decorated)
    check_decorated("step", function)
    own_name = check_name("step", local_name(function) if name is None else name)
    return Step(StepDef(function, own_name, caller_locals(function, depth=2), method, **options))


class StepOptions(TypedDict, total=False):
    """The options of a step that ``run_step`` and ``run_step_async`` make of a function: those of ``@step``."""

    name: str
    max_attempts: int
    interval: float
    backoff: float
    max_interval: float
    jitter: float
    retry_on: RetryOn
    timeout: float | None
    relaxed: bool


@overload
def run_step(name: str, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
@overload
def run_step(name: str, function: Callable[P, Result], /, *args: P.args, **kwargs: P.kwargs) -> Result: ...
@overload
def run_step(function: Callable[[Unpack[Ts]], Awaitable[T]], /, *args: *Ts, **options: Unpack[StepOptions]) -> T: ...
@overload
def run_step(function: Callable[[Unpack[Ts]], Result], /, *args: *Ts, **options: Unpack[StepOptions]) -> Result: ...
def run_step(target: Any, /, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]  # `*Any` takes any `*Ts`
    """Runs any callable as a step from sync code, lambdas and library functions included.

    ``run_step("fetch", client.get, url)`` runs ``client.get(url)`` once and records its result. See
    ``run_step_async``, its awaitable twin, for the forms, arguments and errors.

    Raises:
        BlockingCallError: an event loop runs in the calling thread.
    """
    made, args, kwargs = _ad_hoc(target, args, kwargs)
    return calls.run_step(made, args, kwargs, "await run_step_async(...)")


@overload
def run_step_async(
    name: str, function: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
) -> Coroutine[Any, Any, T]: ...
@overload
def run_step_async(
    name: str, function: Callable[P, Result], /, *args: P.args, **kwargs: P.kwargs
) -> Coroutine[Any, Any, Result]: ...
@overload
def run_step_async(
    function: Callable[[Unpack[Ts]], Coroutine[Any, Any, T]], /, *args: *Ts, **options: Unpack[StepOptions]
) -> Coroutine[Any, Any, T]: ...
@overload
def run_step_async(
    function: Callable[[Unpack[Ts]], Result], /, *args: *Ts, **options: Unpack[StepOptions]
) -> Coroutine[Any, Any, Result]: ...
def run_step_async(  # type: ignore[misc]  # as run_step
    target: Any, /, *args: Any, **kwargs: Any
) -> Coroutine[Any, Any, Any]:
    """Runs any callable as a step, lambdas and library functions included.

    There are two forms. With a name first, all that follows is for the callable:

    ```python
    await run_step_async("fetch", client.get, url, follow_redirects=True)
    ```

    With the callable first, keyword arguments are options of the step, as ``@step`` has them; keyword arguments of the
    callable itself go into a ``functools.partial``:

    ```python
    await run_step_async(client.get, url, name="fetch", max_attempts=3)
    ```

    A sync callable runs in the thread pool. If it returns an awaitable, as ``lambda: client.get(url)`` does with an
    async client, that is awaited.

    Args:
        target: the step's name in records, or the callable. JSON must be able to carry the callable's result.
        args: the callable, if a name comes first; then its positional arguments.
        kwargs: the callable's keyword arguments, if a name comes first; else the step's options. ``name`` is by default
            the callable's own, which a lambda has not.

    Raises:
        Exception: the exception of the callable.
        StepFailedError: the callable failed, and its own exception cannot be rebuilt from the record.
        SerializationError: JSON cannot carry the result.
        DefinitionError: there is no callable, it is a generator function, it has no name, or a sync one has a timeout.
        ConfigurationError: an option is not valid.
        BranchError: the caller is no branch of its workflow.
    """
    made, args, kwargs = _ad_hoc(target, args, kwargs)
    return calls.run_step_async(made, args, kwargs)


def _ad_hoc(
    target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[StepDef, tuple[Any, ...], dict[str, Any]]:
    """The step, its arguments and keyword arguments, from those of ``run_step``."""
    if isinstance(target, str):
        name, options = check_name("step", target), StepOptions()
        function, args = (args[0], args[1:]) if args else (None, ())
    else:
        unknown = kwargs.keys() - StepOptions.__annotations__.keys()
        if unknown:
            msg = (
                f"run_step(function, ...) has no option {min(unknown)!r}; these are: "
                f"{', '.join(StepOptions.__annotations__)}. For an argument of the function write "
                'run_step("name", function, ...), or use functools.partial'
            )
            raise ConfigurationError(msg)
        function, options, kwargs = target, cast("StepOptions", kwargs), {}
        name = check_name("step", options.pop("name", None) or _own_name(function))
    if not callable(function):
        msg = f"step {name!r} needs a function, and its arguments behind it; {function!r} is none"
        raise DefinitionError(msg)
    check_no_generator("step", function)
    timeout, relaxed = options.pop("timeout", None), options.pop("relaxed", False)
    retry = retry_policy(**options) if options else ONCE
    return StepDef(function, name, retry=retry, timeout=timeout, relaxed=relaxed), args, kwargs


def _own_name(function: Any) -> str:
    name = getattr(function, "__name__", None)
    if not callable(function) or not isinstance(name, str) or name == "<lambda>":
        msg = f"run_step({function!r}, ...) needs name=, or a function that has one of its own"
        raise DefinitionError(msg)
    return local_name(function)


def step_of(function: Any) -> StepDef:
    """A step made of a function that is none, under its own name."""
    made, _, _ = _ad_hoc(function, (), {})
    return made
