"""How a step's function is called: in a copy of its caller's context, until an awaitable result has been awaited.

A context variable that a step sets is one of its effects, and a replay runs no step: the body would see the new value
live and the old one on replay. So a step sees the caller's context and changes a copy, in either colour.
"""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from inspect import isawaitable
from types import GeneratorType, coroutine
from typing import TYPE_CHECKING, Any

from dbosflow._runtime.replay.branch import SCOPE
from dbosflow.definitions import StepDef
from dbosflow.errors import StepTimeoutError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
    from contextvars import Context

    from dbosflow._runtime.execution.run import StepAttempt
    from dbosflow.definitions import FunctionDef


def context_of(attempt: StepAttempt) -> Context:
    """A copy of the calling context, in which the code of ``attempt`` runs."""
    context = copy_context()
    context.run(SCOPE.set, attempt)
    return context


def is_awaitable(value: object) -> bool:
    """Whether ``value`` can be awaited; in a fifth of the time that ``inspect.isawaitable`` takes."""
    return hasattr(type(value), "__await__") or (type(value) is GeneratorType and isawaitable(value))


async def awaited(value: Awaitable[Any]) -> Any:
    """Any awaitable as a coroutine."""
    return await value


async def outcome_of(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls the function and returns its final result: an awaitable is awaited, whatever kind of function made it."""
    value = function(*args, **kwargs)
    return await value if is_awaitable(value) else value


def body_of(function: FunctionDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Coroutine[Any, Any, Any]:
    """The call of an async function as a coroutine, in which all code of the function runs."""
    called = function.function
    return called(*args, **kwargs) if function.makes_coroutine else outcome_of(called, *args, **kwargs)


def in_time(attempt: StepAttempt, function: FunctionDef, body: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
    """The body of a step, limited by the step's timeout if there is one."""
    seconds = function.timeout if isinstance(function, StepDef) else None
    return body if seconds is None else _within(seconds, attempt, body)


async def _within(seconds: float, attempt: StepAttempt, body: Coroutine[Any, Any, Any]) -> Any:
    """Awaits the body, and cancels it when the time is over. Raises ``StepTimeoutError`` if that was what ended it."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await body
    except TimeoutError as error:
        if not limit.expired():
            raise
        msg = f"attempt {attempt.name} of step {attempt.key!r} took longer than {seconds:g} s, the step's timeout"
        raise StepTimeoutError(msg) from error


@coroutine
def run_in(context: Context, body: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Awaits ``body`` in the running task, each part of it in ``context``, which saves the cost of a task of its own.

    A cancellation of the caller arrives in the body, as it does in a plain ``await``.
    """
    resume: Callable[[Any], Any] = body.send
    value: Any = None
    while True:
        try:
            waits_for = context.run(resume, value)
        except StopIteration as done:
            return done.value
        try:
            resume, value = body.send, (yield waits_for)
        except GeneratorExit:
            context.run(body.close)
            raise
        except BaseException as error:  # noqa: BLE001 (a cancellation, for example: the body handles it)
            resume, value = body.throw, error
