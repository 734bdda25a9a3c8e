"""The settings of an engine: frozen, checked once when they are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbosflow.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

VERSION = "0.1.0"

DATABASE_URL_VARIABLE = "DBOSFLOW_DATABASE_URL"
DEFAULT_DATA_DIR = Path(".dbosflow")
DEFAULT_QUEUE = "default"

LONGEST_SCHEMA = 50
"""In characters: with a prefix and a part's name it is that of a NOTIFY channel, which Postgres would cut at 63."""

MAX_IDENTIFIER = 512
"""The longest workflow id, stream key or queue name, in characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything an engine can be told. Durations are seconds, sizes bytes."""

    schema: str = "dbosflow"
    executes: bool = True
    lease: float = 10.0
    """How long a worker may be silent before its workflows go to another."""
    grace: float = 8.0
    """How long running steps may go on when the engine closes."""
    max_recoveries: int = 10
    """Reclaims from dead workers without a new record before a workflow is parked as blocked."""
    connect_timeout: float = 15.0
    """How long a caller waits for a connection, or for an answer of a database that is away; workflows wait longer."""
    listen_url: str | None = field(default=None, repr=False)
    """Where to LISTEN, if not at the database's URL: a direct way past a pooler that hands connections on."""
    pooled: bool | None = None
    """Whether a pooler in transaction mode stands between; found out when the engine opens, unless told."""
    pool_size: int = 4
    """Connections for reads and enqueues, besides the engine's own few."""
    workflow_threads: int = 64
    """Sync workflows that run at a time in this process; those that wait do not count."""
    waiting_threads: int = 2048
    """Sync workflows that wait at a time in this process: each keeps a thread. Beyond it a wait for another workflow
    raises :class:`~dbosflow.errors.ThreadLimitError`, and a sleep counts as running."""
    step_threads: int = 32
    """Sync steps of async workflows that run at a time in this process."""
    batch_bytes: int = 4 * 1024 * 1024
    block_values: int = 512
    block_bytes: int = 64 * 1024
    buffer_bytes: int = 4 * 1024 * 1024
    """What one workflow may have buffered for its streams before a write waits."""
    buffer_timeout: float | None = None
    """How long a write waits for room in that buffer before it fails; ``None``: for as long as it takes."""
    value_bytes: int = 64 * 1024 * 1024
    """The largest value of a stream, as JSON."""
    stream_values: int | None = None
    """How many values may ever be written to one stream; ``None``: any number."""
    stream_bytes: int | None = None
    """How much may ever be written to one stream, as JSON; ``None``: any amount."""
    compact_every: float | None = 60.0
    """How often this engine looks for streams of ended workflows to store in fewer, larger blocks; ``None``: never."""
    safety_poll: float = 7.0
    """How often tails are re-read although LISTEN is healthy: it covers a lost hint."""
    fast_poll: float = 0.1
    """How often they are re-read while LISTEN is not healthy."""
    replay_grace: float = 5.0
    """How long a replay that stands still waits for an event, a lock or a queue, which a thread may yet stir: then code
    and records disagree, and the workflow is parked as blocked. What leaves a trace, as a timer does, it waits for."""
    loop_factory: Callable[[], Any] | None = field(default=None, repr=False)
    """Makes the event loop that ``with`` hosts the engine on, ``uvloop.new_event_loop`` say; default: asyncio's own."""
    slow_callback: float = 0.1
    """From which hold-up of the event loop on the watchdog speaks."""

    def __post_init__(self) -> None:
        for name in ("lease", "connect_timeout", "safety_poll", "fast_poll", "replay_grace", "slow_callback"):
            if not getattr(self, name) > 0:
                _refuse(name, getattr(self, name), "a number of seconds above 0")
        if not self.grace >= 0:
            _refuse("grace", self.grace, "a number of seconds, 0 or more")
        for name in ("max_recoveries", "pool_size", "workflow_threads", "waiting_threads", "step_threads"):
            if getattr(self, name) < 1:
                _refuse(name, getattr(self, name), "a whole number of at least 1")
        for name in ("batch_bytes", "block_values", "block_bytes", "buffer_bytes", "value_bytes"):
            if getattr(self, name) < 1:
                _refuse(name, getattr(self, name), "at least 1")
        check_identifier("schema", self.schema, longest=LONGEST_SCHEMA)
        self._check_limits()

    def _check_limits(self) -> None:
        for name in ("stream_values", "stream_bytes"):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                _refuse(name, limit, "at least 1, or None for no limit")
        for name in ("buffer_timeout", "compact_every"):
            limit = getattr(self, name)
            if limit is not None and not limit > 0:
                _refuse(name, limit, "a number of seconds above 0, or None")


def check_identifier(what: str, value: object, *, longest: int = MAX_IDENTIFIER) -> str:
    """``value`` if it can name a ``what``; else a :class:`ConfigurationError` that says what can."""
    if not isinstance(value, str) or not value or len(value) > longest or "\0" in value or not _encodes(value):
        shown = repr(value) if len(repr(value)) < 80 else repr(value)[:77] + "..."  # noqa: PLR2004 (fits a line)
        msg = f"{what} {shown} must be a text of 1 to {longest} characters without NUL or lone surrogates"
        raise ConfigurationError(msg)
    return value


def _encodes(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse(name: str, value: object, wanted: str) -> None:
    msg = f"setting {name}={value!r} must be {wanted}"
    raise ConfigurationError(msg)
