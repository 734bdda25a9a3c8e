"""What can be known of a function before it is called: its colour, where its code is, whose method it is.

Nothing here goes by what a function wraps where that may say something else than the function itself: a wrapper may
make an async function of a sync one, or the reverse.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from dbosflow.errors import DefinitionError

Function = Callable[..., Any]

_LOCAL = "<locals>"


# -- what may be decorated -------------------------------------------------------------------------------------------


def check_decorated(kind: str, function: object) -> None:
    """Refuses what a decorator cannot make a ``kind`` (step, workflow) of."""
    decorator = f"@{kind}"
    if isinstance(function, str):
        msg = f"{decorator}({function!r}): a name is given by keyword, {decorator}(name={function!r})"
        raise DefinitionError(msg)
    if getattr(function, "definition", None) is not None:
        msg = f"{function!r} is decorated already: a function is a step or a workflow, and once"
        raise DefinitionError(msg)
    if isinstance(function, type):
        msg = f"{decorator} is for functions and methods, and {function.__qualname__!r} is a class"
        raise DefinitionError(msg)
    if not callable(function):
        msg = f"{decorator} is for functions, and {function!r} is none"
        if isinstance(function, property):
            msg = f"{decorator} is for functions: it goes below @property, which takes what it gives"
        raise DefinitionError(msg)
    check_no_generator(kind, function)


def check_no_generator(kind: str, function: Function) -> None:
    """Refuses generator functions, sync and async: what they yield is no outcome that could be on record."""
    called = _called(function)
    if inspect.isasyncgenfunction(called) or (inspect.isgeneratorfunction(called) and not is_async(function)):
        msg = (
            f"{where(function)} is a generator function, and a {kind} has one outcome: return a list, or hand each "
            "value on as it comes with write_stream(...)"
        )
        raise DefinitionError(msg)


# -- colours ---------------------------------------------------------------------------------------------------------


def is_async(function: Function) -> bool:
    """Whether calling it gives a coroutine: it is an ``async def``, or is marked as one (compiled code, wrappers)."""
    function = _whole(function)
    for one in (function, _called(function)):
        if inspect.iscoroutinefunction(one) or type(getattr(one, "_is_coroutine", None)) is object:  # asyncio's mark
            return True
        code = getattr(one, "__code__", None)  # of a generator made a coroutine by types.coroutine
        if isinstance(code, CodeType) and code.co_flags & inspect.CO_ITERABLE_COROUTINE:
            return True
    return False


def wraps_async(function: Function) -> bool:
    """Whether it is a sync function around an async one: whether its call gives a coroutine, only the call shows."""
    return not is_async(function) and is_async(inspect.unwrap(_called(function)))


def mark_async(face: Any, function: Function) -> None:
    """Has ``inspect``, and so all who ask it, take the object ``face`` for the coroutine function ``function``."""
    if hasattr(inspect, "markcoroutinefunction"):
        inspect.markcoroutinefunction(face)
        return
    # Before Python 3.12 there is no mark: what has a function's attributes is judged by its code.
    called = _called(function)
    code = getattr(called, "__code__", None)
    is_plain = isinstance(code, CodeType) and bool(code.co_flags & inspect.CO_COROUTINE)
    face.__code__ = code if is_plain else _asynchronous.__code__
    face.__defaults__ = called.__defaults__ if is_plain else None
    face.__kwdefaults__ = called.__kwdefaults__ if is_plain else None
    for name, default in (("__name__", type(function).__name__), ("__annotations__", {})):
        if name not in vars(face):
            setattr(face, name, default)


async def _asynchronous() -> None:
    """Stands for the code of what has none of its own."""


def _called(function: Function) -> Function:
    """The function that runs when ``function`` is called."""
    function = _whole(function)
    if inspect.isroutine(function) or hasattr(function, "__code__") or isinstance(function, type):
        return function
    called: Function = getattr(type(function), "__call__", function)  # noqa: B004 (of a callable object: it is called)
    return called


def _whole(function: Function) -> Function:
    """The function that a partial one is a part of."""
    while isinstance(function, partial):
        function = function.func
    return function


# -- names and places ------------------------------------------------------------------------------------------------


def qualified_name(function: Function) -> str:
    """A workflow's default name."""
    function = _whole(function)
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)


def local_name(function: Function) -> str:
    """A step's default name, and a branch's: qualified, without the functions that it was defined in."""
    return qualified_name(function).rpartition(f"{_LOCAL}.")[2]


def where(function: Function) -> str:
    """A function for messages: by its name, and its file and line if it has them."""
    code = _code(function)
    at = f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else ""
    return f"{getattr(function, '__module__', '?')}.{qualified_name(function)}{at}"


def annotated(function: Function) -> Function:
    """The function whose annotations hold for ``function``."""
    innermost: Function = inspect.unwrap(_called(function))
    return innermost


def reference_to(face: Any, receiver: tuple[Any, ...]) -> str | tuple[Any, ...]:
    """How ``face``, which stands for a function, is pickled: by reference, as the function would be."""
    if receiver:
        return getattr, (receiver[0], face.__name__)
    return str(face.__qualname__)


def _code(function: Function) -> CodeType | None:
    code = getattr(annotated(function), "__code__", None)
    return code if isinstance(code, CodeType) else None


class Site:
    """Where in which code a function was defined, and whether that definition still holds."""

    def __init__(self, function: Function) -> None:
        called, code = annotated(function), _code(function)
        self._module = str(getattr(called, "__module__", None))
        self._name = qualified_name(function)
        self._file = code.co_filename if code is not None else None
        self._place = (self._file, code.co_firstlineno) if code is not None else (self._module, self._name)
        self._globals = getattr(called, "__globals__", None)
        module = sys.modules.get(self._module)
        self._load = getattr(module, "__spec__", None)
        self._is_cell = self._file is not None and _is_cell(self._file, module)

    def gives_way_to(self, other: Site) -> bool:
        """Whether a definition at the site ``other`` replaces this one, and is not a second one beside it.

        It is the same line again (a reload, an import under another name, a function that was called once more), or a
        cell of a session that is run anew, or this definition is gone: its module was loaded again, or lost it.
        """
        if self._place == other._place:
            return True
        if self._is_cell and other._is_cell and (self._file != other._file or hasattr(sys, "ps1")):
            return True
        return not self._is_there

    @property
    def _is_there(self) -> bool:
        module = sys.modules.get(self._module)
        if module is None or (self._globals is not None and self._globals is not vars(module)):
            return False
        if getattr(module, "__spec__", None) is not self._load:  # each load has a spec of its own
            return False
        # What a function or a class holds cannot be looked up: the one has ended, the other may be in the making.
        return not self._name.isidentifier() or hasattr(module, self._name)


def _is_cell(file: str, module: ModuleType | None) -> bool:
    """Whether code of this file name comes from no file: from a notebook's cell, a prompt, a doctest."""
    return file != getattr(module, "__file__", None) and not Path(file).is_file()


# -- methods ---------------------------------------------------------------------------------------------------------


def unbound(function: Any) -> tuple[Any, type | None]:
    """The function that a ``classmethod`` or ``staticmethod`` object holds, and which of the two it was."""
    for kind in (classmethod, staticmethod):
        if isinstance(function, kind):
            return function.__func__, kind
    return function, None


def owner_of(function: Function) -> type | None:
    """The class whose class method the function is, on whichever side of our decorator ``@classmethod`` stands."""
    path, _, name = qualified_name(function).rpartition(".")
    if not path or path.endswith(_LOCAL):
        return None
    module = getattr(function, "__module__", None)
    if _LOCAL not in path:
        found: Any = sys.modules.get(module or "")
        for part in path.split("."):
            found = getattr(found, part, None)
        candidates = [found] if isinstance(found, type) else []
    else:
        candidates = [one for one in descendants(object) if (one.__module__, one.__qualname__) == (module, path)]
    return next((one for one in reversed(candidates) if _is_class_method(vars(one).get(name), function)), None)


def definer_of(function: Function, kind: type) -> type | None:
    """The class among ``kind`` and its bases whose class method the function is."""
    name = qualified_name(function).rpartition(".")[2]
    return next((one for one in kind.__mro__ if _is_class_method(vars(one).get(name), function)), None)


def descendants(kind: type) -> Iterator[type]:
    """The subclasses of a class, and theirs; of one class in the order in which they were made."""
    seen: set[type] = set()
    pending = [kind]
    while pending:
        made: list[type] = type.__subclasses__(pending.pop())
        for one in made:
            if one not in seen:
                seen.add(one)
                pending.append(one)
                yield one


def class_name(kind: type) -> str:
    """The name by which a record knows a class."""
    return f"{kind.__module__}.{kind.__qualname__}"


def _is_class_method(held: Any, function: Function) -> bool:
    method = getattr(getattr(held, "definition", None), "method", None)
    if not isinstance(held, classmethod) and method is not classmethod:
        return False
    return inspect.unwrap(held) is inspect.unwrap(function)
