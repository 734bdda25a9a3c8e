"""Values of any kind as JSON that gives them back as they are: what an exception holds, and no annotation tells."""

from __future__ import annotations

import base64
from typing import Any

_LARGEST_INTEGER = 10_000
"""In bits. Python reads and writes integers of up to 4,300 digits."""
_MARKS = frozenset({"$tuple", "$bytes", "$dict"})


class UnfaithfulError(Exception):
    """JSON cannot carry the value, or returns another one."""


def encoded(value: Any) -> Any:
    """A value as JSON that comes back unchanged. Tuples and bytes, which JSON does not have, are marked objects."""
    kind = type(value)
    if value is None or kind in {str, bool} or (kind is float and value - value == 0):
        return value
    if kind is int and value.bit_length() <= _LARGEST_INTEGER:
        return value
    if kind is list:
        return [encoded(one) for one in value]
    if kind is tuple:
        return {"$tuple": [encoded(one) for one in value]}
    if kind is bytes:
        return {"$bytes": base64.b64encode(value).decode()}
    if kind is dict and all(type(name) is str for name in value):
        fields = {name: encoded(one) for name, one in value.items()}
        return {"$dict": fields} if _mark(value) else fields
    raise UnfaithfulError


def decoded(value: Any) -> Any:
    """The value that ``encoded`` has made such JSON of."""
    if isinstance(value, list):
        return [decoded(one) for one in value]
    if not isinstance(value, dict):
        return value
    mark = _mark(value)
    if mark == "$tuple":
        return tuple(map(decoded, value[mark]))
    if mark == "$bytes":
        return base64.b64decode(value[mark])
    return {name: decoded(one) for name, one in (value[mark] if mark else value).items()}


def _mark(value: dict[str, Any]) -> str | None:
    """The name that marks an object as no dictionary, or as a dictionary that looks like a marked object."""
    name = next(iter(value)) if len(value) == 1 else None
    return name if name in _MARKS else None


def same(a: object, b: object) -> bool:
    """Whether they are equal, and of the same types all through."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a == b
