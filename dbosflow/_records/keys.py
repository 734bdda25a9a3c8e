"""The grammar of records' keys, of branches' paths, and of the ids that children get by their position.

```text
key      = [path "/"] name "#" n            the nth operation of that name in its branch
         | key "/" offset                   an item of a loop, or of a list that is mapped
         | key "/" offset "/ended"          the child of such a list's item has ended
         | key "@" epoch "." n              a failed attempt
         | key "/given-up" | key "/woken" | key "/expired" | key "/until"
                                            other facts on record about an operation
         | [path "/"] name "#" n "/patched" the nth call of patched(name) took new code
         | path "/write_stream(" stream ")@" count "." n
                                            the nth refusal of what would be the branch's value ``count`` there
         | path "/write_stream('" stream "')/changed"
                                            a replay has written other values there than the run before
         | "/cancelled" | "/compensating"   a request was delivered to the body; it was over, and compensations began
         | "~" n                            the workflow was continued as new, for the nth time
path     = iteration | [iteration "/"] region | [iteration "/"] [region "/"] branch { "/" branch }
branch   = name "#" n                       the nth task of that name that its parent has made
region   = name                             ``with branch(name)``: at the root, and once in an iteration
iteration = "~" n                           the nth iteration but the first: the branch of its body
child id = parent's id "/" key, with "+" for the key's own "/"
```

No two kinds of record share a key, and only this module reads keys; SQL reads the step's key from producers' names
(see ``stream_block`` in ``schema.sql``).

Separators never stand in a name: there they are written as ``%`` and two hexadecimal digits for each byte, as in a
URL, and so are ``%`` itself and characters that no text column takes. Two names never give one key, and two positions
never one child's id. A key that would be too long for an index is cut, and ends with ``~`` and the hash of the whole.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

from dbosflow._records.kinds import RecordKind
from dbosflow.config import MAX_IDENTIFIER

GIVEN_UP = "/given-up"
"""Ends the key of the record that an operation was cancelled; the kind ``given_up`` is what is stored."""
WOKEN = "/woken"
"""Ends the key of the record that a sleep is over, in a run with branches."""
EXPIRED = "/expired"
"""Ends the key of the record that a durable timeout has expired."""
UNTIL = "/until"
"""Ends the key of the record that holds the deadline of an operation that waits."""
ENDED = "/ended"
"""Ends the key of the record that the child for an item of a list has ended."""
PATCHED = "/patched"
"""Ends the key of the record that new code was taken."""

COMPENSATIONS = "/compensation"
"""The path of the branch that carries out compensations. No branch of a body has it: a name holds no slash."""
CANCELLED = "/cancelled"
"""The key of the record that a request to end the workflow was delivered to its body."""
COMPENSATING = "/compensating"
"""The key of the record that the body was over, and its compensations began."""

_LONGEST_NAME = 256
_LONGEST_PATH = 512
"""In bytes: a key, preceded by a workflow's id and a stream's key, has to fit an index, a third of a page."""
_LONGEST_CHANGED = 256
"""In bytes: such a key ends with the stream's key as it is, which may be of any length."""
_KEPT = 64
"""Bytes that are kept of a key that is too long."""

_ITERATION = re.compile(r"~(\d+)(?:/|\Z)")
_NOT_IN_NAMES = re.compile(r"[%/#@+~\x00-\x1f\x7f\ud800-\udfff]")

_FUNCTION = re.compile(r"[^\W\d]\w*(?:\.(?:<locals>|<lambda>|[^\W\d]\w*))+")
"""A function with its module: the name that anyio gives a task by default."""
_LONG_NUMBER = r"\d{3}|[0-9a-fA-F]{8}"
_DRAWN = re.compile(rf"{_LONG_NUMBER}|(?:^|[\W_])\d|^None$")
"""Task names that a replay may not give again: asyncio's own, and those with a counter, an address or a UUID in them.

``None`` is what Python 3.13 calls a task of a factory that was given no name.
"""
_DRAWN_IN_FUNCTION = re.compile(_LONG_NUMBER)


@lru_cache(maxsize=4096)
def segment(name: str) -> str:
    """A name as a part of a key."""
    return _shortened(_NOT_IN_NAMES.sub(_escaped, name), _LONGEST_NAME)


def branch_path(parent: str, part: str, occurrence: int) -> str:
    """The path of a branch whose name is ``part`` as a segment."""
    return _shortened(f"{parent}/{part}#{occurrence}", _LONGEST_PATH) if parent else f"{part}#{occurrence}"


def operation_key(path: str, part: str, occurrence: int) -> str:
    """The key of an operation whose name is ``part`` as a segment."""
    return f"{path}/{part}#{occurrence}" if path else f"{part}#{occurrence}"


def iteration_path(iteration: int) -> str:
    """The path of the branch of an iteration's body; also the key of the record with which the iteration began."""
    return f"~{iteration}" if iteration else ""


def iteration_of(key: str) -> int:
    """The iteration that a record, a branch or a producer belongs to by its name; 0: the first one."""
    found = _ITERATION.match(key)
    return int(found[1]) if found else 0


def region_path(root: str, part: str) -> str:
    """The path of the region whose name is ``part`` as a segment, in the iteration whose body has the path ``root``."""
    return f"{root}/{part}" if root else part


def patch_key(path: str, part: str, occurrence: int) -> str:
    """The key of the record that a call of ``patched`` took new code."""
    return f"{path}/{part}#{occurrence}{PATCHED}" if path else f"{part}#{occurrence}{PATCHED}"


def item_key(loop_key: str, offset: int) -> str:
    """The key of a loop's item, which is a step."""
    return f"{loop_key}/{offset}"


def attempt_name(epoch: int, number: int) -> str:
    """The name of an attempt of a step: two owners of a workflow never give the same name."""
    return f"{epoch}.{number}"


GIVEN = attempt_name(0, 1)
"""The attempt in the record of an outcome that a fork was given. No owner has epoch 0, so none gives the name."""


def attempt_key(step_key: str, attempt: str) -> str:
    """The key of the record that an attempt has failed."""
    return f"{step_key}@{attempt}"


def refused_key(path: str, stream: str, count: int, number: int) -> str:
    """The key of a refusal of the branch's value ``count`` in a stream; ``number`` counts the refusals, from 0."""
    return f"{path}/write_stream({segment(stream)})@{count}.{number}"


def changed_key(path: str, stream: str) -> str:
    """The key of the record that a branch has written other values to a stream than in the run before."""
    key = f"{path}/write_stream({stream!r})/changed"
    if len(key.encode()) <= _LONGEST_CHANGED:
        return key
    return f"/write_stream(...)/changed~{hashlib.sha256(key.encode()).hexdigest()}"


def is_within(path: str, outer: str) -> bool:
    """Whether a branch is ``outer``, or was made by or for ``outer``."""
    return outer in {"", path} or path.startswith(f"{outer}/")


def is_own(key: str) -> bool:
    """Whether an operation's key is one of the body's own, and not that of a branch, an item or a failed attempt."""
    found = _ITERATION.match(key)
    own = key if found is None else key[found.end() :]
    return bool(own) and "/" not in own and "@" not in own


def is_item_of(key: str, loop_key: str) -> bool:
    """Whether the key is that of an item of this loop."""
    loop, _, offset = key.rpartition("/")
    return loop == loop_key and offset.isdecimal()


def is_of_compensations(key: str) -> bool:
    """Whether the key is that of a record of carrying out compensations."""
    return key == COMPENSATING or key.startswith(f"{COMPENSATIONS}/")


def step_of(attempt_key: str) -> str:
    """The key of the step to which an attempt's key, or the name of an attempt's writes, belongs."""
    return attempt_key.rpartition("@")[0]


def attempt_of(attempt_key: str) -> str:
    """The attempt in an attempt's key, or in the name of an attempt's writes."""
    return attempt_key.rpartition("@")[2]


def path_of(key: str) -> str:
    """The path of the branch that owns the operation, or the loop's item, with this key."""
    path, _, last = key.rpartition("/")
    return path if "#" in last else path.rpartition("/")[0]


def child_id(parent_id: str, key: str) -> str:
    """The id of the child that a workflow starts at ``key``."""
    return _shortened(f"{parent_id}/{key.replace('/', '+')}", MAX_IDENTIFIER)


@lru_cache(maxsize=4096)
def given_name(task_name: str) -> str | None:
    """The name that a task's branch gets from the task; ``None`` if a replay might name the task differently."""
    if _FUNCTION.fullmatch(task_name):
        name = task_name.rpartition(".")[2]
        return None if _DRAWN_IN_FUNCTION.search(name) else name
    return None if not task_name or _DRAWN.search(task_name) else task_name


def operation_of(key: str, kind: str = "") -> str:
    """The key of the operation that a record belongs to."""
    if kind == RecordKind.ATTEMPT:
        return step_of(key)
    if kind in (RecordKind.MAPPED, RecordKind.MAPPED_RESULT):
        return key.removesuffix(ENDED).rpartition("/")[0]
    return key.removesuffix(GIVEN_UP).removesuffix(WOKEN).removesuffix(EXPIRED).removesuffix(UNTIL)


def keys_of(operation_key: str) -> list[str]:
    """The keys of the records that an operation may have, without those of its failed attempts."""
    return [operation_key, *(f"{operation_key}{suffix}" for suffix in (GIVEN_UP, WOKEN, EXPIRED, UNTIL))]


def shown(key: str) -> str:
    """A record's key in readable form."""
    for suffix, what in _STATED:
        if key.endswith(suffix):
            return f"that {key.removesuffix(suffix)!r} {what}"
    return repr(key)


_STATED = (
    (GIVEN_UP, "was cancelled"),
    (WOKEN, "was over"),
    (EXPIRED, "has expired"),
    (UNTIL, "has a deadline"),
)


def _escaped(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogatepass"))


def _shortened(text: str, longest: int) -> str:
    encoded = text.encode()
    if len(encoded) <= longest:
        return text
    return f"{encoded[:_KEPT].decode(errors='ignore')}~{hashlib.sha256(encoded).hexdigest()}"
