"""Definitions of workflows and steps: the function, its name and types.

Nothing here runs anything. Annotations are resolved at their first use, so a function may name types that are defined
after it.
"""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MethodType
from typing import Any, ClassVar, get_args, get_origin

from dbosflow._records.kinds import RecordKind
from dbosflow.config import check_identifier, check_seconds
from dbosflow.errors import ConfigurationError, DefinitionError, SerializationError
from dbosflow.functions import (
    Function,
    annotated,
    class_name,
    definer_of,
    descendants,
    is_async,
    makes_coroutine,
    owner_of,
    wraps_async,
)
from dbosflow.retries import ONCE, RetryPolicy
from dbosflow.serde import Codec, brief, faithful_types, for_people, object_type

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True)
class FunctionDef:
    """A decorated function: what workflows and steps have in common."""

    function: Function
    name: str
    local_names: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    method: type | None = None
    """``classmethod`` or ``staticmethod``, if the function was decorated as such."""

    kind = "function"
    returns = inspect.Signature.empty

    @cached_property
    def is_async(self) -> bool:
        """Whether a call returns an awaitable."""
        return is_async(self.function)

    @cached_property
    def makes_coroutine(self) -> bool:
        """Whether a call does nothing but make a coroutine."""
        return makes_coroutine(self.function)

    @cached_property
    def wraps_async(self) -> bool:
        """Whether the function is a sync one that wraps an async one, so that only a call shows what it returns."""
        return wraps_async(self.function)

    @cached_property
    def result(self) -> Codec[Any]:
        """The codec of the result."""
        return Codec(self.result_type, f"the result of {self}")

    @property
    def result_type(self) -> Any:
        """The type of the result; of an async function that of what it is awaited for."""
        if self.returns is not inspect.Signature.empty:
            return self.returns
        annotation = self._hints.get("return", Any)
        if isinstance(origin := get_origin(annotation), type) and issubclass(origin, Awaitable):
            annotation = get_args(annotation)[-1]
        return annotation

    @cached_property
    def _hints(self) -> Mapping[str, Any]:
        function = annotated(self.function)
        if not hasattr(function, "__annotations__"):
            return {}
        try:
            return typing.get_type_hints(function, localns=dict(self.local_names), include_extras=True)
        except NameError as error:
            msg = f"{self} has an annotation that cannot be resolved: {error}; import the name at run time"
            raise DefinitionError(msg) from error
        except TypeError:  # a built-in or a callable object, which has no annotations
            return {}

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}"


@dataclass(frozen=True)
class StepDef(FunctionDef):
    """A step. Its outcome is recorded, its arguments are not."""

    retry: RetryPolicy = ONCE
    timeout: float | None = None
    """Seconds that an attempt of an async step may take."""
    relaxed: bool = False
    """Whether the workflow goes on before the outcome is durable."""

    kind = "step"
    record_kind: ClassVar[RecordKind] = RecordKind.STEP
    """The kind of the records of its outcomes."""

    def __post_init__(self) -> None:
        relaxed: object = self.relaxed
        if not isinstance(relaxed, bool):
            msg = f"{self} has relaxed={self.relaxed!r}, which must be True or False"
            raise ConfigurationError(msg)
        if self.timeout is None:
            return
        check_seconds(f"a {self.kind}'s timeout", self.timeout, above_zero=True)
        self._check_timeout()

    def _check_timeout(self) -> None:
        if not (self.is_async or self.wraps_async):
            msg = (
                f"{self} has a timeout and is a sync function: its thread cannot be ended. Make it async, or give the "
                "timeout to what it calls; the watchdog names code that blocks"
            )
            raise DefinitionError(msg)


@dataclass(frozen=True)
class WorkflowDef(FunctionDef):
    """A workflow. Its arguments are recorded with its start, as a JSON object with the parameters' names."""

    inputs: tuple[str, ...] = ()
    """The keys of the streams that are written from outside; recorded with the start, too."""
    timeout: float | None = None
    """How long an execution may take from its start, in seconds."""
    max_recoveries: int | None = None
    """How often its workers may die in a row without a new record; recorded with the start. ``None``: the engine's."""
    compensates: bool = False
    """Whether the body registers compensations."""
    compensation_timeout: float | None = None
    """How long these may take, in seconds."""

    returns: Any = inspect.Signature.empty
    """The type of the result, if it is not what the function's annotation says."""
    kind = "workflow"

    @cached_property
    def is_async(self) -> bool:
        """Whether the body runs on the loop. That of a sync function around an async one does."""
        return is_async(self.function) or self.wraps_async

    def dump_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """The arguments of a call as JSON.

        A class method's first argument is its class, which is recorded unless it is the class that defines the method.

        Raises:
            TypeError: the arguments do not fit the signature. The message is that of a plain call.
            SerializationError: JSON cannot carry an argument under its annotation.
        """
        if self._class_parameter is None:
            return self._dump(args, kwargs)
        name = self._recorded_class(args[0] if args else None)
        text = self._dump(args[1:], kwargs)
        if name is None:
            return text
        return f"{{{json.dumps(self._class_parameter)}:{json.dumps(name)}{'' if text == '{}' else ','}{text[1:]}"

    def dump_next_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], before: str) -> str:
        """The arguments of the next iteration as JSON; a class method gets its class from those of the one before."""
        receiver = () if self._class_parameter is None else self.load_arguments(before)[0][:1]
        return self.dump_arguments((*receiver, *args), kwargs)

    def _dump(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        plain = self._plain_parameters
        if plain is None or kwargs or len(args) != len(plain):
            try:
                bound = self.signature.bind(*args, **kwargs)
            except TypeError as error:
                msg = f"workflow {self.name!r}: {error}"
                raise TypeError(msg) from None
            return self._arguments.dump((dict(bound.arguments),))[1:-1]
        arguments, fits = {}, True  # the same as `bind`, in a tenth of its time
        for place, (name, types) in enumerate(plain):
            arguments[name] = value = args[place]
            if type(value) not in types:
                fits = False
        return self._arguments.dump((arguments,), fits=fits)[1:-1]

    def load_arguments(self, text: str) -> tuple[list[Any], dict[str, Any]]:
        """The positional and keyword arguments to call with, from the JSON of a start.

        Raises:
            SerializationError: they do not fit the signature. The message names them, and shows the record.
            DefinitionError: the workflow is a class method, and its class is not known in this process.
        """
        if self._class_parameter is None:
            return self._load(text)
        values = for_people(text)
        named = isinstance(values, dict) and self._class_parameter in values
        receiver = self._class_named(values.pop(self._class_parameter) if named else None)
        args, kwargs = self._load(json.dumps(values) if named else text)
        return [receiver, *args], kwargs

    def _load(self, text: str) -> tuple[list[Any], dict[str, Any]]:
        if text == "{}" and not self.signature.parameters:  # as below, in no time
            return [], {}
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

    def takes(self, name: str) -> bool:
        """Whether the function takes a keyword argument of this name."""
        parameters = self.signature.parameters.values()
        return any(
            one.kind is one.VAR_KEYWORD or (one.name == name and one.kind is not one.POSITIONAL_ONLY)
            for one in parameters
        )

    def _names_fit(self, text: str) -> bool:
        """Whether the function has all these parameters. The object type does not tell: it ignores unknown names."""
        recorded = for_people(text)
        return isinstance(recorded, dict) and self._required <= recorded.keys() <= self.signature.parameters.keys()

    def _misfit(self, text: str) -> SerializationError:
        """The error for recorded arguments that the function does not take; it says which, and why."""
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
                Codec(self.annotation_of(parameters[name]), argument).load(json.dumps(value))
            except SerializationError as error:
                misfits.append(str(error))
        return SerializationError("; ".join(misfits) or f"arguments that do not fit: {brief(text)}")

    @cached_property
    def _class_parameter(self) -> str | None:
        """The name of the parameter for the class, if the function is a class method."""
        if self.method is not classmethod and owner_of(self.function) is None:
            return None
        return next(iter(inspect.signature(self.function).parameters))

    def _recorded_class(self, kind: object) -> str | None:
        """The name of the class that a class method was called on; ``None`` for the class that defines it."""
        if not isinstance(kind, type) or (owner := definer_of(self.function, kind)) is None:
            msg = f"{self} is a class method: name it as one of its class, with @workflow above @classmethod"
            raise DefinitionError(msg)
        if kind is owner:
            return None
        name = class_name(kind)
        if self._class_named(name) is not kind:
            msg = f"{self} is called on one of several classes that are named {name!r}: a recovery could take another"
            raise DefinitionError(msg)
        return name

    def _class_named(self, name: object) -> type:
        """The class that a record names. It must be a known class: a row in a database must not import modules."""
        owner = owner_of(self.function)
        if owner is None:
            msg = f"the class that {self} is a class method of is not there"
            raise DefinitionError(msg)
        known = [owner] if name is None else [one for one in descendants(owner) if class_name(one) == name]
        if not known:
            msg = f"no subclass of {class_name(owner)!r} is named {name!r} here: import the module that defines it"
            raise DefinitionError(msg)
        return known[-1]

    @cached_property
    def signature(self) -> inspect.Signature:
        """The function's signature."""
        function = self.function if self._class_parameter is None else MethodType(self.function, object)
        return inspect.signature(function)

    @cached_property
    def _required(self) -> frozenset[str]:
        """The parameters without a default."""
        parameters = self.signature.parameters.values()
        optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return frozenset(one.name for one in parameters if one.default is one.empty and one.kind not in optional)

    @cached_property
    def _plain_parameters(self) -> tuple[tuple[str, tuple[type, ...]], ...] | None:
        """The names and types of the parameters, if all may be positional and their types need no check by pydantic."""
        parameters = self.signature.parameters.values()
        if not all(one.kind in _POSITIONAL for one in parameters):
            return None
        return tuple((one.name, faithful_types(self._hints.get(one.name, Any))) for one in parameters)

    @cached_property
    def _arguments(self) -> Codec[tuple[dict[str, Any]]]:
        # In a tuple: pydantic applies a codec's settings from the root of a type, and an object type has its own.
        members = {one.name: self.annotation_of(one) for one in self.signature.parameters.values()}
        arguments: Any = object_type("Arguments", members)
        return Codec(tuple[arguments], f"the arguments of {self}", shown=str(self.signature))

    def annotation_of(self, parameter: inspect.Parameter) -> Any:
        """The type of a parameter; of one that takes several values the type of all of them."""
        annotation: Any = self._hints.get(parameter.name, Any)
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            return tuple[annotation, ...]
        return dict[str, annotation] if parameter.kind is inspect.Parameter.VAR_KEYWORD else annotation


def check_name(kind: str, name: object) -> str:
    """``name``, if it is valid for a workflow or step. Otherwise raises a ``ConfigurationError``."""
    return check_identifier(f"{kind} name", name)
