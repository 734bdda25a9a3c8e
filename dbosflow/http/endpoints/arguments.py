"""The arguments of an endpoint's workflow: checked in a request, and described for clients."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field, PydanticUserError, TypeAdapter, ValidationError, create_model
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind

from dbosflow.errors import DefinitionError
from dbosflow.schemas import of_extensions

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from pydantic import BaseModel

    from dbosflow.definitions import WorkflowDef

_MOST_ERRORS = 20
"""Errors of one request that its client is told."""


class NotValidError(Exception):
    """A request's arguments are not valid. ``errors`` says where and why, for the client."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__(errors)
        self.errors = errors


class Arguments:
    """The arguments that a request gives to a workflow: members of its body, and parts of its path.

    Args:
        definition: the workflow.
        path_names: the arguments that are in the path.
        guarded: the arguments that guards give.

    Raises:
        DefinitionError: the workflow has other parameters than plain named ones, lacks a named one, or one has no type
            that JSON can carry.
    """

    def __init__(self, definition: WorkflowDef, path_names: Iterable[str], guarded: Iterable[str]) -> None:
        self._what = str(definition)
        parameters = definition.signature.parameters
        self.path_names, guarded = frozenset(path_names), frozenset(guarded)
        for name in sorted((self.path_names | guarded) - parameters.keys()):
            msg = f"{definition} has no parameter {name!r}, which its endpoint gives it"
            raise DefinitionError(msg)
        fields = {}
        for name, parameter in parameters.items():
            if parameter.kind not in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}:
                msg = f"{definition} cannot be exposed: a request gives arguments by name, and {parameter} has none"
                raise DefinitionError(msg)
            if name not in guarded:
                default = ... if parameter.default is inspect.Parameter.empty else parameter.default
                fields[name] = (of_extensions(definition.annotation_of(parameter)), default)
        # Under names of our own: a parameter may be named as pydantic names nothing (``_x``, ``model_config``).
        self._places = {name: f"field{place}" for place, name in enumerate(fields)}
        self._model = _model(definition, fields, self._places)
        self.body_names = [name for name in fields if name not in self.path_names]
        _ = self.schema  # what cannot be described is refused here, and not by the first client

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of all arguments; its definitions are under ``$defs``."""
        return _described(self._model, "validation", self._what)

    def load(self, body: bytes, in_path: Mapping[str, str]) -> tuple[dict[str, Any], Any]:
        """The arguments of a request by name, without those that it leaves out; and its body as plain JSON.

        Raises:
            NotValidError: they are not those of the workflow.
        """
        plain = _parsed(body) if body.strip() else {}
        if not isinstance(plain, dict):
            raise NotValidError([_error("body", (), "an object with the arguments by name is expected")])
        unknown = [name for name in plain if name not in self.body_names]
        if unknown:
            why = "there is no such argument"
            raise NotValidError([_error("body", (name,), why) for name in unknown[:_MOST_ERRORS]])
        try:
            text = json.dumps({**plain, **in_path})
            found = self._model.model_validate_json(text, by_alias=True, by_name=True)
        except ValidationError as error:
            raise NotValidError(validation_errors(error, self.path_names)) from None
        except (ValueError, RecursionError) as error:
            raise NotValidError([_error("body", (), "the JSON cannot be read")]) from error
        given = {self._places[name]: name for name in [*plain, *in_path]}
        return {name: getattr(found, place) for place, name in given.items()}, plain


def schema_of_output(annotation: Any, what: str) -> dict[str, Any]:
    """The JSON schema of values as they are stored and sent: with the Python names of fields.

    Raises:
        DefinitionError: there is none.
    """
    return _described(of_extensions(annotation), "serialization", what)


def schema_of_input(annotation: Any, what: str) -> dict[str, Any]:
    """The JSON schema of values that a client sends. Raises a ``DefinitionError`` if there is none."""
    return _described(of_extensions(annotation), "validation", what)


class _Generator(GenerateJsonSchema):
    """Leaves out a default that is no JSON, without a warning: the function has it."""

    ignored_warning_kinds: set[JsonSchemaWarningKind] = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 (as pydantic declares it)


def _described(annotation: Any, mode: Literal["validation", "serialization"], what: str) -> dict[str, Any]:
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        return adapter.json_schema(mode=mode, by_alias=mode == "validation", schema_generator=_Generator)
    except (PydanticUserError, NameError) as error:
        reason = str(error).partition("\n")[0]
        msg = f"{what} cannot be exposed: clients cannot be told what {annotation!r} is: {reason}"
        raise DefinitionError(msg) from error


def _model(definition: WorkflowDef, fields: Mapping[str, Any], places: Mapping[str, str]) -> type[BaseModel]:
    members: dict[str, Any] = {
        places[name]: (annotation, Field(default, alias=name)) for name, (annotation, default) in fields.items()
    }
    config = ConfigDict(extra="forbid", ser_json_bytes="base64", val_json_bytes="base64", arbitrary_types_allowed=False)
    try:
        return create_model(definition.name, __config__=config, **members)
    except (PydanticUserError, NameError) as error:
        reason = str(error).partition("\n")[0]
        msg = f"{definition} cannot be exposed, because a request cannot give its arguments: {reason}"
        raise DefinitionError(msg) from error


def _parsed(body: bytes) -> Any:
    def refuse(constant: str) -> None:
        msg = f"{constant} is no JSON"
        raise ValueError(msg)

    try:
        return json.loads(body.decode(), parse_constant=refuse)
    except (ValueError, RecursionError):
        raise NotValidError([_error("body", (), "the body is no JSON")]) from None


def validation_errors(error: ValidationError, in_path: Collection[str] = ()) -> list[dict[str, Any]]:
    """Where and why values are not valid, without the values: a secret in a wrong place must not come back."""
    found = error.errors(include_url=False, include_input=False, include_context=False)[:_MOST_ERRORS]
    return [
        _error("path" if one["loc"] and one["loc"][0] in in_path else "body", one["loc"], one["msg"]) for one in found
    ]


def _error(place: str, loc: Iterable[str | int], why: str) -> dict[str, Any]:
    return {"in": place, "at": list(loc), "why": why}
