"""Attributes of workflows: names and plain values that users search by."""

from __future__ import annotations

import json
from collections.abc import Mapping

from dbosflow.config import check_identifier, shown
from dbosflow.errors import ConfigurationError

Attribute = str | int | bool
"""The value of an attribute."""

MOST = 32
"""How many attributes one call may set."""
_LONGEST = 512
"""The longest value as JSON, in bytes: an index entry holds it beside two names, and is limited to 2,704 bytes."""


def attributes_text(attributes: object) -> str | None:
    """The attributes of a start as one JSON object, each value as its own JSON in a text; ``None`` if there are none.

    Raises:
        ConfigurationError: a name or a value is not valid.
    """
    values = checked_attributes(attributes)
    return json.dumps(values) if values else None


def checked_attributes(attributes: object) -> dict[str, str]:
    """Attributes with their values as JSON, which is the form that they are stored and compared in.

    Raises:
        ConfigurationError: a name or a value is not valid.
    """
    if not isinstance(attributes, Mapping):
        msg = f"attributes={shown(attributes)} must be a dictionary of names and values"
        raise ConfigurationError(msg)
    if len(attributes) > MOST:
        msg = (
            f"{len(attributes)} attributes are too many: at most {MOST}. They are for searching; data belongs in values"
        )
        raise ConfigurationError(msg)
    return {check_identifier("attribute name", name): _value_text(name, value) for name, value in attributes.items()}


def checked_changes(attributes: object) -> dict[str, str | None]:
    """Changes of attributes: values as JSON, and ``None`` for those to be removed.

    Raises:
        ConfigurationError: a name or a value is not valid, or there are none.
    """
    if not isinstance(attributes, Mapping) or not attributes:
        msg = f"attributes={shown(attributes)} must be a dictionary with at least one name; a value of None removes it"
        raise ConfigurationError(msg)
    removed = dict.fromkeys(check_identifier("attribute name", name) for name, one in attributes.items() if one is None)
    return {**checked_attributes({name: one for name, one in attributes.items() if one is not None}), **removed}


def attribute_of(text: str) -> Attribute:
    """The value of an attribute from its stored form; a text that dbosflow did not write stands for itself."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, str | int) else text


def _value_text(name: str, value: object) -> str:
    if not isinstance(value, str | int) or (isinstance(value, str) and "\0" in value):
        msg = f"attribute {name!r} = {value!r} must be a text without NUL, a whole number, true or false"
        raise ConfigurationError(msg)
    try:
        text = json.dumps(value, ensure_ascii=False)
        size = len(text.encode())
    except ValueError as error:  # a lone surrogate, or a number of more digits than Python writes
        msg = f"attribute {name!r} cannot be stored: {error}"
        raise ConfigurationError(msg) from None
    if size > _LONGEST:
        msg = f"the value of attribute {name!r} has {size} bytes as JSON: at most {_LONGEST}. It is for searching"
        raise ConfigurationError(msg)
    return text
