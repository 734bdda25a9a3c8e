"""The options of readers, and their checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypedDict, get_args

from dbosflow._runtime.streams.position import ReadRequest, View
from dbosflow.config import LARGEST_OFFSET, check_identifier, check_seconds, check_timeout, check_whole
from dbosflow.errors import ConfigurationError
from dbosflow.serde import Codec
from dbosflow.types import Rollback

OnRollback = Literal["raise", "ignore"] | Callable[[Rollback], object]
"""What an iterator of plain values does when values are rolled back."""


class ReadOptions(TypedDict, total=False):
    """The range of a stream to read, what to see of it, and how long to wait."""

    start: int | Literal["tail"]
    """The offset to begin at (0). ``"tail"``: after the current end. ``-n``: with the last n values."""
    until: int | None
    """The offset to end before; by default none."""
    view: View
    """``"live"`` (default): values at once, and rollbacks of some. ``"committed"``: only values that stay, never those
    of a running attempt. ``"raw"``: every frame, for audits."""
    timeout: float | None
    """Seconds without news after which ``StreamTimeoutError`` is raised. Reading can go on after that."""
    wait_for: float
    """Seconds to wait for a workflow that does not exist, before ``WorkflowNotFoundError`` is raised."""


def read_request(
    workflow_id: str, key: str, type_: Any, options: ReadOptions, final: Codec[Any] | None = None
) -> ReadRequest:
    """The request of these options. Raises a ``ConfigurationError`` that names a wrong one."""
    unknown = options.keys() - ReadOptions.__annotations__.keys()
    if unknown:
        msg = f"there is no option {min(unknown)!r}; these are: {', '.join(ReadOptions.__annotations__)}"
        raise ConfigurationError(msg)
    start: Any = options.get("start", 0)
    until: Any = options.get("until")
    view = options.get("view", "live")
    if start != "tail":
        check_whole("start", start, -LARGEST_OFFSET, LARGEST_OFFSET, or_else='"tail"')
    if until is not None:
        check_whole("until", until, 0, LARGEST_OFFSET, or_none=True)
    check_timeout("timeout", options.get("timeout"))
    check_seconds("wait_for", options.get("wait_for", 0.0))
    if view not in get_args(View):
        msg = f"view={view!r} must be one of {', '.join(map(repr, get_args(View)))}"
        raise ConfigurationError(msg)
    return ReadRequest(
        check_identifier("workflow id", workflow_id),
        check_identifier("stream key", key),
        **options,
        codec=None if type_ is None else Codec(list[type_], f"stream {key!r} of workflow {workflow_id!r}"),
        final=final,
    )
