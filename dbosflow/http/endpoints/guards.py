"""Guards: functions of an endpoint's author that run before a workflow starts, and behind its body."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool

from dbosflow.errors import DefinitionError
from dbosflow.functions import is_async

if TYPE_CHECKING:
    from starlette.requests import Request


@dataclass(frozen=True, slots=True)
class StartCall:
    """A request that is about to start a workflow, as a guard sees it."""

    request: Request
    """Starlette's request; ``await request.body()`` has the body as it was sent."""
    caller: str
    """Who asks, as the application's ``authorize`` has said; empty if nobody was asked."""
    arguments: Mapping[str, Any]
    """The workflow's arguments by name, of their types; a guard sees what those before it have changed."""


Before = Callable[[StartCall], Any]
"""Returns ``None``, or the arguments to change; ``await``ed if it is awaitable. Raises to refuse."""
After = Callable[[Any], Any]
"""Gets what the workflow returns, and returns what its readers get; ``await``ed if it is awaitable."""


@dataclass(frozen=True)
class Guards:
    """The guards of an endpoint, each a sync or an async function.

    A guard that runs *before* gets a ``StartCall``. It runs in the server (a sync one on a thread), at each request,
    behind the check of the arguments and before anything is started. It returns ``None``, or a mapping of arguments
    that it changes. It refuses with ``RequestRefusedError``.

    A guard that runs *after* gets what the workflow's function has returned, and returns that, or something in its
    place. All of them together are one step of the workflow, the last one: its outcome is on record, and every reader
    gets the same. With ``RequestRefusedError`` the workflow fails, and each client gets that.

    Args:
        before: the guards before the start, in their order.
        after: the guards behind the body, in their order.
        sets: the names of arguments that come from a guard only: a request cannot have them.

    Raises:
        DefinitionError: a guard is no function, or cannot be called with one argument.
    """

    before: Iterable[Before] = ()
    after: Iterable[After] = ()
    sets: Iterable[str] = field(default=())

    def __post_init__(self) -> None:
        for name in ("before", "after"):
            guards = tuple(getattr(self, name))
            for guard in guards:
                _check(guard, name)
            object.__setattr__(self, name, guards)
        object.__setattr__(self, "sets", frozenset(self.sets))


NO_GUARDS = Guards()


async def passed(guards: Guards, call: StartCall) -> dict[str, Any]:
    """The arguments of a start, once the guards have let it pass.

    Raises:
        Exception: what a guard raises.
    """
    arguments = dict(call.arguments)
    for guard in guards.before:
        seen = StartCall(call.request, call.caller, dict(arguments))
        changed = guard(seen) if is_async(guard) else await run_in_threadpool(guard, seen)
        if inspect.isawaitable(changed):
            changed = await changed
        if changed is None:
            continue
        if not isinstance(changed, Mapping):
            msg = f"guard {guard!r} returned {type(changed).__name__}: return None, or a dictionary of arguments"
            raise DefinitionError(msg)
        arguments |= changed
    return arguments


def guarded(guards: Guards, value: Any) -> Any:
    """What readers get of a value: an awaitable of it, if a guard is async."""
    rest = list(guards.after)
    while rest:
        value = rest.pop(0)(value)
        if inspect.isawaitable(value):
            return _guarded_async(rest, value)
    return value


async def _guarded_async(rest: list[After], value: Any) -> Any:
    value = await value
    for guard in rest:
        value = guard(value)
        if inspect.isawaitable(value):
            value = await value
    return value


def _check(guard: object, place: str) -> None:
    if not callable(guard):
        msg = f"Guards({place}=[...]) takes functions, and {guard!r} is none"
        raise DefinitionError(msg)
    try:
        inspect.signature(guard).bind(None)
    except TypeError as error:
        msg = f"guard {guard!r} cannot be called with one argument: {error}"
        raise DefinitionError(msg) from error
    except ValueError:  # a built-in function that does not tell
        return
