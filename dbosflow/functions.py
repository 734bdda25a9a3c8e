"""Facts about a function that are known before it is called: its colour, the place of its code, its class.

What a function wraps is no evidence where the function itself may differ: a wrapper can make an async function of a
sync one, or the reverse.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from dbosflow.errors import DefinitionError

Function = Callable[..., Any]

_LOCAL = "<locals>"


# -- what may be decorated -------------------------------------------------------------------------------------------


def check_decorated(kind: str, function: object) -> None:
    """Raises a ``DefinitionError`` if a decorator cannot make a ``kind`` (step, workflow) of the function."""
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
    """Raises a ``DefinitionError`` for generator functions, sync and async: a record holds one outcome."""
    called = _called(function)
    if inspect.isasyncgenfunction(called) or (inspect.isgeneratorfunction(called) and not is_async(function)):
        msg = (
            f"{where(function)} is a generator function, and a {kind} has one outcome: return a list, or hand each "
            "value on as it comes with write_stream(...)"
        )
        raise DefinitionError(msg)


# -- colours ---------------------------------------------------------------------------------------------------------


def is_async(function: Function) -> bool:
    """Whether a call returns a coroutine: it is an ``async def``, or marked as one (compiled code, wrappers)."""
    function = _whole(function)
    for one in (function, _called(function)):
        if inspect.iscoroutinefunction(one) or type(getattr(one, "_is_coroutine", None)) is object:  # asyncio's mark
            return True
        code = getattr(one, "__code__", None)  # a generator that types.coroutine has made a coroutine
        if isinstance(code, CodeType) and code.co_flags & inspect.CO_ITERABLE_COROUTINE:
            return True
    return False


def makes_coroutine(function: Function) -> bool:
    """Whether a call does nothing but make a coroutine: the function is an ``async def``, and no wrapper."""
    return isinstance(function, FunctionType) and bool(function.__code__.co_flags & inspect.CO_COROUTINE)


def wraps_async(function: Function) -> bool:
    """Whether it is a sync function that wraps an async one. Then only a call shows whether it returns a coroutine."""
    return not is_async(function) and is_async(inspect.unwrap(_called(function)))


def mark_async(face: Any, function: Function) -> None:
    """Makes ``inspect``, and so its users, take the object ``face`` for the coroutine function ``function``."""
    if hasattr(inspect, "markcoroutinefunction"):
        inspect.markcoroutinefunction(face)
        return
    # Before Python 3.12 there is no mark: an object with a function's attributes is judged by its code.
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
    """Lends its code to objects that have none."""


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
    """The default name of a step or branch: qualified, without the functions in which it was defined."""
    return qualified_name(function).rpartition(f"{_LOCAL}.")[2]


def where(function: Function) -> str:
    """The function for messages: its name, and its file and line if they are known."""
    code = _code(function)
    at = f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else ""
    return f"{getattr(function, '__module__', '?')}.{qualified_name(function)}{at}"


def annotated(function: Function) -> Function:
    """The function whose annotations apply to ``function``."""
    innermost: Function = inspect.unwrap(_called(function))
    return innermost


def reference_to(face: Any, receiver: tuple[Any, ...]) -> str | tuple[Any, ...]:
    """How ``face``, which stands for a function, is pickled: by reference, like the function."""
    if receiver:
        return getattr, (receiver[0], face.__name__)
    return str(face.__qualname__)


def _code(function: Function) -> CodeType | None:
    code = getattr(annotated(function), "__code__", None)
    return code if isinstance(code, CodeType) else None


class Site:
    """Where a function was defined, and whether the definition is still in force."""

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
        """Whether a definition at the site ``other`` replaces this one, rather than being a second one beside it.

        It does if it is the same line (a reload, an import under another name, a second call of the function around
        it), if both are cells of an interactive session, or if this definition is gone: its module was loaded again,
        or no longer has it.
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
        if getattr(module, "__spec__", None) is not self._load:  # each load has its own spec
            return False
        # A name within a function or class cannot be looked up: the function has returned, the class may be incomplete.
        return not self._name.isidentifier() or hasattr(module, self._name)


def _is_cell(file: str, module: ModuleType | None) -> bool:
    """Whether code with this file name comes from no file but from a notebook's cell, a prompt, or a doctest."""
    return file != getattr(module, "__file__", None) and not Path(file).is_file()


# -- methods ---------------------------------------------------------------------------------------------------------


def unbound(function: Any) -> tuple[Any, type | None]:
    """The function in a ``classmethod`` or ``staticmethod`` object, and which of the two it is."""
    for kind in (classmethod, staticmethod):
        if isinstance(function, kind):
            return function.__func__, kind
    return function, None


def owner_of(function: Function) -> type | None:
    """The class whose class method the function is. ``@classmethod`` may be above or below our decorator."""
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
    """The direct and indirect subclasses of a class. Those of one class come in the order of their definition."""
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
    """The name of a class in records."""
    return f"{kind.__module__}.{kind.__qualname__}"


def _is_class_method(held: Any, function: Function) -> bool:
    method = getattr(getattr(held, "definition", None), "method", None)
    if not isinstance(held, classmethod) and method is not classmethod:
        return False
    return inspect.unwrap(held) is inspect.unwrap(function)


# -- local names ----------------------------------------------------------------------------------------------------


def caller_locals(function: Function, depth: int) -> Mapping[str, Any]:
    """The local names around a function that is defined in another one. Its annotations may use them."""
    if "<locals>" not in getattr(function, "__qualname__", ""):
        return {}
    return dict(sys._getframe(depth + 1).f_locals)  # noqa: SLF001 (pydantic does the same for local types)
