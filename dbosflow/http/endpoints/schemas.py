"""The schemas of an OpenAPI document: those of pydantic, with their definitions in one place."""

from __future__ import annotations

from typing import Any

_DEFS = "#/$defs/"
_COMPONENTS = "#/components/schemas/"


class Schemas:
    """Collects the definitions of schemas. Different ones of the same name get numbers."""

    def __init__(self) -> None:
        self.components: dict[str, Any] = {}
        self._sources: dict[str, Any] = {}

    def add(self, schema: dict[str, Any]) -> dict[str, Any]:
        """A schema as it stands in the document; its definitions are among the components."""
        definitions = schema.get("$defs", {})
        names, number = {name: name for name in definitions}, 1
        while any(self._sources.get(names[name], one) != one for name, one in definitions.items()):
            number += 1
            names = {name: f"{name}{number}" for name in definitions}
        for name, definition in definitions.items():
            self._sources[names[name]] = definition
            self.components[names[name]] = _renamed(definition, names)
        placed: dict[str, Any] = _renamed({name: one for name, one in schema.items() if name != "$defs"}, names)
        return placed


def _renamed(part: Any, names: dict[str, str]) -> Any:
    if isinstance(part, dict):
        return {name: _renamed(one, names) for name, one in part.items()}
    if isinstance(part, list):
        return [_renamed(one, names) for one in part]
    if isinstance(part, str) and part.startswith(_DEFS):  # a $ref, or where a discriminator leads
        return _COMPONENTS + names.get(part.removeprefix(_DEFS), part.removeprefix(_DEFS))
    return part
