"""What the decorators know: a workflow's or step's function, its names, types and retry policy, and the registry.

Nothing here runs anything. Annotations are resolved at first use, so a function may name types defined after it.
"""

from __future__ import annotations

import inspect
import json
import sys
import typing
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MethodType
from typing import Any, get_args, get_origin

from dbosflow.config import LARGEST_INTEGER, check_identifier, check_seconds, check_whole
from dbosflow.errors import ConfigurationError, DefinitionError, SerializationError
from dbosflow.serde import Codec, brief, faithful_types, for_people, object_type

Function = Callable[..., Any]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often a step is tried, and how long it waits between. Durations are seconds."""

    max_attempts: int = 1
    interval: float = 1.0
    backoff: float = 2.0
    max_interval: float = 60.0
    retry_on: tuple[type[Exception], ...] = (Exception,)

    def __post_init__(self) -> None:
        check_whole("a step's max_attempts", self.max_attempts, 1, LARGEST_INTEGER)
        check_seconds("a step's interval", self.interval)
        check_seconds("a step's max_interval", self.max_interval)
        factor: object = self.backoff
        if not isinstance(factor, int | float) or isinstance(factor, bool) or not 1 <= factor < float("inf"):
            msg = f"a step's backoff={factor!r} must be a factor of at least 1"
            raise ConfigurationError(msg)

    def delay_after(self, failures: int) -> float:
        """Seconds to wait after so many failed attempts."""
        exponent = min(failures - 1, 1000)  # a float's range ends near 2**1023
        try:
            return min(self.interval * self.backoff**exponent, self.max_interval)
        except OverflowError:
            return self.max_interval

    def allows_retry(self, failures: int, error: BaseException) -> bool:
        """Whether another attempt follows after so many failures, the last of them ``error``."""
        wrong_type = isinstance(error, SerializationError)  # a result that does not fit its type will not fit next time
        return failures < self.max_attempts and isinstance(error, self.retry_on) and not wrong_type


@dataclass(frozen=True)
class FunctionDef:
    """A decorated function: the part that workflows and steps share."""

    function: Function
    name: str
    local_names: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    kind = "function"

    @cached_property
    def call(self) -> Function:
        """The function to call: a class method's is bound to its class."""
        module = sys.modules.get(getattr(self.function, "__module__", None) or "")
        owner_name, _, name = qualified_name(self.function).rpartition(".")
        owner: Any = module
        for part in owner_name.split("."):
            owner = getattr(owner, part, None) if part else None
        if isinstance(owner, type) and isinstance(inspect.getattr_static(owner, name, None), classmethod):
            return MethodType(self.function, owner)
        return self.function

    @cached_property
    def is_async(self) -> bool:
        """Whether calling it gives an awaitable."""
        call = inspect.unwrap(self.function)
        return inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None))  # noqa: B004 (a callable object's own method)

    @cached_property
    def result(self) -> Codec[Any]:
        """How the result travels."""
        annotation = self._hints.get("return", Any)
        if get_origin(annotation) in _AWAITABLES:
            annotation = get_args(annotation)[-1]
        return Codec(annotation, f"the result of {self}")

    @cached_property
    def _hints(self) -> Mapping[str, Any]:
        function = inspect.unwrap(self.function)
        if not hasattr(function, "__annotations__"):
            return {}
        try:
            return typing.get_type_hints(function, localns=dict(self.local_names), include_extras=True)
        except NameError as error:
            msg = f"{self} has an annotation that cannot be resolved: {error}; import the name at run time"
            raise DefinitionError(msg) from error
        except TypeError:  # no function: a built-in, a callable object
            return {}

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}"


_AWAITABLES = (Awaitable, typing.get_origin(typing.Coroutine[Any, Any, Any]))


@dataclass(frozen=True)
class StepDef(FunctionDef):
    """A step: its outcome is recorded, its arguments are not."""

    retry: RetryPolicy = RetryPolicy()

    kind = "step"


@dataclass(frozen=True)
class WorkflowDef(FunctionDef):
    """A workflow: its arguments are recorded with its start, as a JSON object by parameter name."""

    inputs: tuple[str, ...] = ()
    """The stream keys that outsiders may write, recorded with its start, too."""

    kind = "workflow"

    def dump_input(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """The arguments of a call as JSON; ``TypeError`` if they do not fit the signature, as a plain call says it."""
        plain = self._plain_parameters
        if plain is None or kwargs or len(args) != len(plain):
            return self._arguments.dump((dict(self.signature.bind(*args, **kwargs).arguments),))[1:-1]
        arguments, fits = {}, True  # as `bind` says it, in a tenth of its time
        for place, (name, types) in enumerate(plain):
            arguments[name] = value = args[place]
            if type(value) not in types:
                fits = False
        return self._arguments.dump((arguments,), fits=fits)[1:-1]

    def load_input(self, text: str) -> tuple[list[Any], dict[str, Any]]:
        """The positional and keyword arguments to call with, from the JSON of a start.

        Raises:
            SerializationError: they do not fit the signature; it says which of them, and what is recorded.
        """
        if not self._names_fit(text):
            raise self._misfit(text)
        try:
            (values,) = self._arguments.load(f"[{text}]")
        except SerializationError as error:
            raise self._misfit(text) from error
        plain = self._plain_parameters
        if plain is not None and len(values) == len(plain):
            return [values[name] for name, _ in plain], {}
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for position, (name, parameter) in enumerate(self.signature.parameters.items()):
            if name not in values:
                continue
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                args.extend(values[name])
            elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                kwargs.update(values[name])
            elif parameter.kind in _POSITIONAL and position == len(args):
                args.append(values[name])
            else:
                kwargs[name] = values[name]
        return args, kwargs

    def _names_fit(self, text: str) -> bool:
        """Whether the function has these parameters. Types alone do not tell: they pass over what they do not know."""
        recorded = for_people(text)
        return isinstance(recorded, dict) and self._required <= recorded.keys() <= self.signature.parameters.keys()

    def _misfit(self, text: str) -> SerializationError:
        """Which recorded arguments the function does not take, and why."""
        recorded = for_people(text)
        if not isinstance(recorded, dict):
            return SerializationError(f"{brief(text)}, which is no object of arguments")
        parameters = self.signature.parameters
        misfits = [f"no argument {name!r}, which has no default" for name in sorted(self._required - recorded.keys())]
        for name, value in recorded.items():
            argument = f"argument {name!r} = {brief(json.dumps(value))}"
            if name not in parameters:
                misfits.append(f"{argument}, which is none of its parameters")
                continue
            try:
                Codec(self._annotation_of(parameters[name]), argument).load(json.dumps(value))
            except SerializationError as error:
                misfits.append(str(error))
        return SerializationError("; ".join(misfits) or f"arguments that do not fit: {brief(text)}")

    @cached_property
    def signature(self) -> inspect.Signature:
        """What the function takes."""
        return inspect.signature(self.call)

    @cached_property
    def _required(self) -> frozenset[str]:
        """The parameters that every call gives a value."""
        parameters = self.signature.parameters.values()
        optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return frozenset(one.name for one in parameters if one.default is one.empty and one.kind not in optional)

    @cached_property
    def _plain_parameters(self) -> tuple[tuple[str, tuple[type, ...]], ...] | None:
        """The parameters, if each may be given by its place and is one value: name, and types that need no check."""
        parameters = self.signature.parameters.values()
        if not all(one.kind in _POSITIONAL for one in parameters):
            return None
        return tuple((one.name, faithful_types(self._hints.get(one.name, Any))) for one in parameters)

    @cached_property
    def _arguments(self) -> Codec[tuple[dict[str, Any]]]:
        # In a tuple, since pydantic applies a codec's settings from the root of a type and an object type has its own.
        members = {one.name: self._annotation_of(one) for one in self.signature.parameters.values()}
        arguments: Any = object_type("Arguments", members)
        return Codec(tuple[arguments], f"the arguments of {self}", shown=str(self.signature))

    def _annotation_of(self, parameter: inspect.Parameter) -> Any:
        annotation: Any = self._hints.get(parameter.name, Any)
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            return tuple[annotation, ...]
        return dict[str, annotation] if parameter.kind is inspect.Parameter.VAR_KEYWORD else annotation


class Registry:
    """The workflows that this process knows, by name. The decorators fill the one that :data:`registry` is."""

    def __init__(self) -> None:
        self._workflows: dict[str, WorkflowDef] = {}

    def add(self, definition: WorkflowDef) -> None:
        """Makes ``definition`` known. Another function under a taken name is an error; a reloaded one replaces."""
        known = self._workflows.get(definition.name)
        if known is not None and _home(known.function) != _home(definition.function):
            msg = (
                f"two functions are workflows under the name {definition.name!r}: {_where(known.function)} and "
                f"{_where(definition.function)}; name one of them with @workflow(name=...)"
            )
            raise DefinitionError(msg)
        self._workflows[definition.name] = definition

    def get(self, name: str) -> WorkflowDef | None:
        """The workflow of that name, if this process knows it."""
        return self._workflows.get(name)

    def names(self) -> list[str]:
        """The names of all workflows that this process can run."""
        return list(self._workflows)


registry = Registry()


def check_name(kind: str, name: object) -> str:
    """``name`` if a workflow or step may have it."""
    return check_identifier(f"{kind} name", name)


def qualified_name(function: Function) -> str:
    """A workflow's default name."""
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)


def local_name(function: Function) -> str:
    """A step's default name, and a branch's: qualified, without the functions that it was defined in."""
    return qualified_name(function).rpartition("<locals>.")[2]


def caller_locals(function: Function, depth: int) -> Mapping[str, Any]:
    """The names around a function defined inside another one, which its annotations may use."""
    if "<locals>" not in getattr(function, "__qualname__", ""):
        return {}
    return dict(sys._getframe(depth + 1).f_locals)  # noqa: SLF001 (what pydantic does for local types, too)


def _home(function: Function) -> tuple[str | None, str | None]:
    return getattr(function, "__module__", None), getattr(function, "__qualname__", None)


def _where(function: Function) -> str:
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', function)}"
