"""The settings of an engine: frozen, checked once when they are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dbosflow.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

VERSION = "0.1.0"

DATABASE_URL_VARIABLE = "DBOSFLOW_DATABASE_URL"
DEFAULT_DATA_DIR = Path(".dbosflow")
DEFAULT_QUEUE = "default"

LONGEST_SCHEMA = 50
"""In bytes: with a prefix and a part's name it is that of a NOTIFY channel, which Postgres would cut at 63."""

MAX_IDENTIFIER = 512
"""The longest workflow id, stream key, queue or other name, in bytes of UTF-8. A few go into one entry of an index,
which takes 2,704 bytes."""
LARGEST_INTEGER = 2**31 - 1
"""What a column of type ``integer`` holds at most."""
LARGEST_OFFSET = 2**62
"""The largest offset, or number of bytes: half of what a ``bigint`` holds, so that sums fit, too."""
LARGEST_PART = 256 * 1024 * 1024
"""The most bytes of one payload. Postgres takes a message of up to 1 GB: at a larger one it closes the connection, and
what was to be written would be sent again for ever."""
LONGEST_DURATION = 36525 * 24 * 3600.0
"""In seconds, a hundred years: Python's timers and Postgres's intervals take it."""


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
    raises ``ThreadLimitError``, and a sleep counts as running; so do, for starts that no workflow waits for, those that
    wait beyond about three quarters of it. Of steps that wait for workflows, so many lend their thread's place."""
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
    """The largest value of a stream, as JSON. Of inputs, too: there the setting of the engine that writes holds."""
    stream_values: int | None = None
    """How many values may ever be written to one stream; ``None``: any number."""
    stream_bytes: int | None = None
    """How much may ever be written to one stream, as JSON; ``None``: any amount."""
    on_changed_values: Literal["warn", "block"] = "warn"
    """What becomes of a workflow whose replay writes other values to a stream than are on record."""
    compact_every: float | None = 60.0
    """How often this engine looks for streams of ended workflows to store in fewer, larger blocks; ``None``: never."""
    safety_poll: float = 7.0
    """How often tails are re-read although LISTEN is healthy: it covers a lost hint."""
    fast_poll: float = 0.1
    """How often they are re-read while LISTEN is not healthy."""
    replay_grace: float = 5.0
    """How long a stalled replay waits for an event, a lock or a queue, on which a thread may yet act: then code
    and records disagree, and the workflow is parked as blocked. What leaves a trace, as a timer does, it waits for."""
    loop_factory: Callable[[], Any] | None = field(default=None, repr=False)
    """Makes the event loop that ``with`` hosts the engine on, ``uvloop.new_event_loop`` say; default: asyncio's own."""
    slow_callback: float = 0.1
    """From which hold-up of the event loop on the watchdog speaks."""

    def __post_init__(self) -> None:
        for name in ("lease", "connect_timeout", "safety_poll", "fast_poll", "replay_grace", "slow_callback"):
            check_seconds(f"setting {name}", getattr(self, name), above_zero=True)
        check_seconds("setting grace", self.grace)
        for name in ("buffer_timeout", "compact_every"):
            if getattr(self, name) is not None:
                check_seconds(f"setting {name}", getattr(self, name), above_zero=True, or_none=True)
        for names, most in _COUNTS.items():
            for name in names:
                check_whole(f"setting {name}", getattr(self, name), 1, most)
        for name in ("stream_values", "stream_bytes"):
            if getattr(self, name) is not None:
                check_whole(f"setting {name}", getattr(self, name), 1, LARGEST_OFFSET, or_none=True)
        check_schema(self.schema)
        if self.on_changed_values not in {"warn", "block"}:
            msg = f'setting on_changed_values={self.on_changed_values!r} must be "warn" or "block"'
            raise ConfigurationError(msg)


_COUNTS = {
    ("max_recoveries", "pool_size", "workflow_threads", "waiting_threads", "step_threads"): LARGEST_INTEGER,
    ("block_values",): LARGEST_INTEGER,
    ("batch_bytes", "block_bytes", "value_bytes"): LARGEST_PART,
    ("buffer_bytes",): LARGEST_OFFSET,
}
"""The settings that count, and how far."""


def check_identifier(what: str, value: object, *, longest: int = MAX_IDENTIFIER) -> str:
    """``value`` if it can name a ``what``; else a ``ConfigurationError`` that says what can."""
    if not isinstance(value, str) or not value or _size(value) > longest or "\0" in value:
        msg = f"{what} {_shown(value)} must be a text of 1 to {longest} bytes in UTF-8, without NUL or lone surrogates"
        raise ConfigurationError(msg)
    return value


def check_schema(name: object) -> str:
    """``name`` if it can be a schema's, and part of a channel's; else a ``ConfigurationError`` says why not."""
    check_identifier("schema", name, longest=LONGEST_SCHEMA)
    assert isinstance(name, str)
    if not name.isprintable() or name.startswith("pg_"):
        msg = f"schema {_shown(name)} must hold no control characters, and not begin with pg_, which Postgres reserves"
        raise ConfigurationError(msg)
    return name


def check_whole(what: str, value: object, least: int, most: int, *, or_none: bool = False, or_else: str = "") -> int:
    """``value`` if it is a whole number in this range; else a ``ConfigurationError`` that says so.

    ``or_else`` says what else there may be.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        or_else = "None" if or_none else or_else
        msg = f"{what}={_shown(value)} must be a whole number from {least} to {most}{or_else and f', or {or_else}'}"
        raise ConfigurationError(msg)
    return value


def check_seconds(what: str, value: object, *, above_zero: bool = False, or_none: bool = False) -> float:
    """``value`` if it is a duration that timers and the database take; else a ``ConfigurationError``."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= LONGEST_DURATION or (above_zero and not value):  # type: ignore[operator]  # a number
        bounds = f"{'above 0' if above_zero else 'of 0 or more'}, up to {LONGEST_DURATION:.0f} (a hundred years)"
        msg = f"{what}={_shown(value)} must be a number of seconds {bounds}{', or None' * or_none}"
        raise ConfigurationError(msg)
    return value  # type: ignore[return-value]  # a number


def check_timeout(what: str, value: object) -> None:
    """Refuses what is neither a duration nor ``None``."""
    if value is not None:
        check_seconds(what, value, or_none=True)


def _size(text: str) -> float:
    """In bytes of UTF-8; infinite if it has none."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return float("inf")


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        text = "a number of thousands of digits"
    return text if len(text) < 80 else f"{text[:77]}..."  # noqa: PLR2004 (fits a line)
