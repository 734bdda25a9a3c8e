"""What keys and kinds of records tell a replay: which operation one is of, and whether it hands anything on."""

from __future__ import annotations

GIVEN_UP = "/given-up"
"""Ends the key of the record that an operation was given up. No branch or step name can hold the slash."""
WOKEN = "/woken"
"""Ends the key of the record that a sleep is over, in a run with branches."""

_NO_OPERATION = frozenset({"refused", "patched"})
"""Kinds that show no operation of their branch."""
_SILENT = _NO_OPERATION | {"attempt"}
"""Kinds that hand the program nothing, and so have no turn. Every other one does, also one that is added later."""


def hands_on(kind: str) -> bool:
    """Whether a record of this kind hands an outcome to the program, in a turn that a replay repeats."""
    return kind not in _SILENT


def shows_operation(kind: str) -> bool:
    """Whether a record of this kind shows that its branch has asked for an operation."""
    return kind not in _NO_OPERATION


def operation_of(key: str, kind: str = "") -> str:
    """The key of the operation that a record is of."""
    if kind == "attempt":
        return key.rpartition("@")[0]
    return key.removesuffix(GIVEN_UP).removesuffix(WOKEN)


def path_of(key: str) -> str:
    """The path of the branch whose operation has this key."""
    return key.rpartition("/")[0]


def shown(key: str) -> str:
    """A record's key, as a person reads it."""
    for suffix, what in ((GIVEN_UP, "was given up"), (WOKEN, "was over")):
        if key.endswith(suffix):
            return f"that {key.removesuffix(suffix)!r} {what}"
    return repr(key)
