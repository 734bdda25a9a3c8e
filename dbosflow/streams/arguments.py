"""Checks of the transformers' arguments, when they are given rather than when the first value comes."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any

from dbosflow.definitions import FunctionDef
from dbosflow.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable


def check_function(name: str, fn: Any) -> None:
    """Raises a ``ConfigurationError`` if ``name`` cannot call ``fn`` for a value that it needs at once."""
    _check_callable(name, fn)
    if _is_async(fn):
        twin = f"{name}_async" if name in {"map", "flat_map"} else "map_async first"
        msg = f"{name} needs a plain function, and {fn!r} is async: use {twin}"
        raise ConfigurationError(msg)


def check_async_function(name: str, fn: Any) -> None:
    """Raises a ``ConfigurationError`` if ``name`` cannot await ``fn``. A plain function may return an awaitable."""
    _check_callable(name, fn)
    if _is(inspect.isasyncgenfunction, fn):
        msg = f"{name} awaits what its function gives, and {fn!r} is an async generator: return an iterable instead"
        raise ConfigurationError(msg)


def check_count(name: str, count: object, least: int) -> None:
    """Raises a ``ConfigurationError`` unless ``count`` is a whole number of at least ``least``."""
    if not isinstance(count, int) or isinstance(count, bool) or count < least:
        msg = f"{name}={count!r} must be a whole number of at least {least}"
        raise ConfigurationError(msg)


def _check_callable(name: str, fn: Any) -> None:
    if not callable(fn):
        msg = f"{name} needs a function of one value, not {fn!r}: the source comes first, then the function"
        raise ConfigurationError(msg)


def _is_async(fn: Any) -> bool:
    while isinstance(fn, partial):
        fn = fn.func
    definition = getattr(fn, "definition", None)
    if isinstance(definition, FunctionDef):  # a step or a workflow
        return definition.is_async
    return _is(inspect.iscoroutinefunction, fn) or _is(inspect.isasyncgenfunction, fn)


def _is(kind: Callable[[Any], bool], fn: Any) -> bool:
    """Whether a call of ``fn``, which may be an object with a ``__call__``, calls a function of this kind."""
    return kind(fn) or (not isinstance(fn, type) and kind(getattr(fn, "__call__", None)))  # noqa: B004 (as it says)
