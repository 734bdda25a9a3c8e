"""Schemas of types: pydantic's own, with the same settings for bytes and numbers at every depth.

For a model's fields pydantic uses the model's own settings, whatever the surrounding type says. So the settings are
inserted into the schema of each model, dataclass and typed dict within a type, unless its author has set them.
"""

from __future__ import annotations

import sys
import types
import typing
from functools import cache, reduce
from operator import or_
from typing import Annotated, Any, get_args, get_origin

import typing_extensions
from pydantic import TypeAdapter
from pydantic_core import SchemaSerializer, SchemaValidator

_SETTINGS = {"ser_json_bytes": "base64", "val_json_bytes": "base64", "ser_json_inf_nan": "constants"}
"""Bytes need not be UTF-8. NaN and infinity are written as such, so that they are noticed and refused."""
_WITH_SETTINGS = frozenset({"model", "dataclass", "typed-dict"})
_PLAIN = (Any, str, bool, int, float, None, type(None))
_NO_SCHEMAS = frozenset({"metadata", "default", "expected", "config"})
"""Keys of a schema whose values are no schemas."""


class Schema:
    """How values of one annotation are written and read. ``is_open`` if some part of it may have any type.

    Raises what pydantic raises for an annotation that has no schema.
    """

    __slots__ = ("is_open", "serializer", "validator")

    def __init__(self, annotation: Any) -> None:
        adapter: TypeAdapter[Any] = TypeAdapter(of_extensions(annotation))
        schema, kinds = dict(adapter.core_schema), set[str]()
        ours = _with_settings(schema, kinds)
        self.is_open = "any" in kinds
        self.serializer: SchemaSerializer = _built(SchemaSerializer, ours)
        self.validator: SchemaValidator = _built(SchemaValidator, ours)


@cache
def _of_plain(annotation: Any) -> Schema:
    return Schema(annotation)


def schema_of(annotation: Any) -> Schema:
    """The schema of an annotation. Those of plain types are cached, because ``run_step`` needs one at each call."""
    return _of_plain(annotation) if any(annotation is plain for plain in _PLAIN) else Schema(annotation)


def _built(what: Any, schema: Any) -> Any:
    try:
        return what(schema, _SETTINGS, _use_prebuilt=False)
    except TypeError:  # before pydantic 2.13 a prebuilt schema is always used, and bytes that are not UTF-8 are refused
        return what(schema, _SETTINGS)


def _with_settings(part: Any, kinds: set[str]) -> Any:
    """A copy of a schema, or of a part of one, with our settings. Adds the kinds of its parts to ``kinds``."""
    if type(part) is dict:
        copy = {key: value if key in _NO_SCHEMAS else _with_settings(value, kinds) for key, value in part.items()}
        kind = part.get("type")
        if isinstance(kind, str):
            kinds.add(kind)
            if kind in _WITH_SETTINGS:
                copy["config"] = {**_SETTINGS, **(part.get("config") or {})}
        return copy
    if type(part) is list:
        return [_with_settings(one, kinds) for one in part]
    if type(part) is tuple:
        return tuple(_with_settings(one, kinds) for one in part)
    return part


def of_extensions(annotation: Any) -> Any:
    """``annotation`` with typed dicts that pydantic accepts: before Python 3.12 those of ``typing_extensions``."""
    if sys.version_info >= (3, 12):
        return annotation
    return _of_extensions(annotation, ())


def _of_extensions(annotation: Any, inside: tuple[Any, ...]) -> Any:
    if typing.is_typeddict(annotation) and type(annotation).__module__ == "typing":
        return annotation if annotation in inside else _typed_dict(annotation, (*inside, annotation))
    origin, args = get_origin(annotation), get_args(annotation)
    if not args or origin is typing.Literal:
        return annotation
    if origin is Annotated:
        replaced = _of_extensions(args[0], inside)
        return annotation if replaced is args[0] else Annotated[(replaced, *args[1:])]
    new = tuple(_of_extensions(one, inside) for one in args)
    if all(one is other for one, other in zip(new, args, strict=True)):
        return annotation
    if origin is types.UnionType:
        return reduce(or_, new)
    return annotation.copy_with(new) if hasattr(annotation, "copy_with") else origin[new]


def _typed_dict(annotation: Any, inside: tuple[Any, ...]) -> Any:
    hints = typing_extensions.get_type_hints(annotation, include_extras=True)
    members: dict[str, Any] = {}
    for name, hint in hints.items():
        member = _of_extensions(hint, inside)
        wrap: Any = (
            typing_extensions.Required if name in annotation.__required_keys__ else typing_extensions.NotRequired
        )
        members[name] = wrap[member]
    make: Any = typing_extensions.TypedDict
    made = make(annotation.__name__, members)
    made.__module__ = annotation.__module__
    if (config := getattr(annotation, "__pydantic_config__", None)) is not None:
        made.__pydantic_config__ = config
    return made
