"""The settings of an engine. They are frozen, and checked when they are made."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dbosflow.codecs.chain import Codecs
from dbosflow.errors import ConfigurationError
from dbosflow.types import LONGEST_DURATION

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dbosflow.codecs.codec import PayloadCodec

VERSION = "0.1.0"

DATABASE_URL_VARIABLE = "DBOSFLOW_DATABASE_URL"
DEFAULT_DATA_DIR = Path(".dbosflow")
DEFAULT_QUEUE = "default"

LONGEST_SCHEMA = 50
"""In bytes. With a prefix and a part's name it names a NOTIFY channel, which Postgres would cut at 63 bytes."""

MAX_IDENTIFIER = 512
"""The longest workflow id, stream key, queue or other name, in bytes of UTF-8. An index entry holds a few of them and
is limited to 2,704 bytes."""
LONGEST_REASON = 1000
"""The longest reason of a cancellation, in bytes of UTF-8. It stands at the end of each open stream."""
LONGEST_VERSION = 128
"""The longest name of a version, in bytes of UTF-8: with a queue's name it stands in an index entry."""
_LAST_YEAR = 9000
"""Times behind it, plus a timeout, may be none that Python can hold."""
LARGEST_INTEGER = 2**31 - 1
"""The largest value of a column of type ``integer``."""
LEAST_INBOX = 100
"""The lowest limit of messages on a topic: some that were received stay for a while, in the newest block and before."""
LARGEST_OFFSET = 2**62
"""The largest offset or number of bytes: half of the largest ``bigint``, so that sums fit, too."""
LARGEST_PART = 256 * 1024 * 1024
"""The largest payload, in bytes. Postgres takes messages of up to 1 GB and closes the connection at a larger one; the
payload would then be sent again for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long workflows stay after their end. Executing engines remove older ones in the background.

    A removed workflow is gone with its records and streams, and its id is free: a start with it runs the workflow
    anew. So choose ages beyond which nobody repeats a start or asks for a result. A workflow stays, whatever its age,
    as long as its parent is there, so that the tree of a kept workflow is kept.

    Ages are seconds or a ``timedelta``; ``math.inf`` means for ever. Give all workers the same retention: each removes
    by its own.
    """

    finished_after: timedelta | float
    """How long ended workflows stay, counted from the end."""
    failed_after: timedelta | float | None = None
    """How long those stay that failed, to find out why; ``None``: like the others."""
    keep: Collection[str] | Mapping[str, int | None] = ()
    """The names of workflows that stay for ever. A mapping can name a number besides: at least so many stay, the newest
    that have ended, and older ones go by their age. ``{"audit": None, "report": 20}`` keeps each audit and 20 reports.
    """

    def __post_init__(self) -> None:
        for name in ("finished_after", "failed_after"):
            age = getattr(self, name)
            if age != math.inf and (age is not None or name == "finished_after"):
                check_seconds(f"retention {name}", _seconds(age), above_zero=True, or_else="math.inf for ever")
        if isinstance(self.keep, str) or not isinstance(self.keep, Collection):
            msg = f"retention keep={shown(self.keep)} must be a list of workflow names, or a dict of names and numbers"
            raise ConfigurationError(msg)
        for name, count in self.kept.items():
            check_identifier("retention keep: the workflow name", name)
            if count is not None:
                check_whole(f"retention keep[{name!r}]", count, 1, LARGEST_INTEGER, or_none=True)

    @property
    def finished_age(self) -> float:
        """``finished_after`` in seconds."""
        return _seconds(self.finished_after)

    @property
    def failed_age(self) -> float:
        """In seconds: how long failed workflows stay."""
        return _seconds(self.finished_after if self.failed_after is None else self.failed_after)

    @property
    def kept(self) -> Mapping[str, int | None]:
        """The names in ``keep``, each with how many of it are kept; ``None``: all."""
        return self.keep if isinstance(self.keep, Mapping) else dict.fromkeys(self.keep)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of an engine. Durations are seconds, sizes are bytes."""

    schema: str = "dbosflow"
    """The schema of the tables: a name of up to 50 bytes."""
    executes: bool = True
    """Whether workflows run in this process. ``False`` makes a client, whose starts are enqueued."""
    suspend_after: float = 60.0
    """After how many seconds a workflow that only waits leaves memory, and comes back when what it waits for has come.

    ``0``: never. It waits in memory for at least twenty times as long as its last replay took. See docs/workflows.md.
    """
    lease: float = 10.0
    """How long a worker may be silent before other workers take over its workflows."""
    grace: float = 8.0
    """How long running steps may go on when the engine closes."""
    max_recoveries: int = 10
    """How often a workflow may be reclaimed from dead workers without a new record before it is parked as blocked."""
    connect_timeout: float = 15.0
    """How long a caller waits for a connection, or for an answer of a database that is away. Workflows wait longer."""
    listen_url: str | None = field(default=None, repr=False)
    """Where to LISTEN if not at the database's URL: a direct connection, if the URL is that of a pooler."""
    pooled: bool | None = None
    """Whether there is a pooler in transaction mode; ``None``: the engine finds out when it opens."""
    pool_size: int = 4
    """The number of connections for reads and enqueues, in addition to the engine's own few."""
    transaction_pool_size: int = 10
    """The number of connections for ``@transaction`` functions, besides the others; made when they are needed."""
    workflow_threads: int = 64
    """How many sync workflows run at a time in this process. Waiting ones do not count."""
    waiting_threads: int = 2048
    """How many sync workflows wait at a time in this process; each keeps a thread.

    Above the limit a wait for another workflow raises ``ThreadLimitError``, and a sleep counts as running. For starts
    that no workflow waits for, the waiting workflows above about three quarters of the limit count as running, too.
    The same number of steps that wait for workflows do not count as running.
    """
    step_threads: int = 32
    """How many sync steps of async workflows run at a time in this process."""
    batch_bytes: int = 4 * 1024 * 1024
    """At how many bytes of JSON the journal closes a batch; the rest goes into the next one."""
    block_values: int = 512
    """At how many values a block of a stream is full."""
    block_bytes: int = 64 * 1024
    """At how many bytes of JSON a block of a stream is full."""
    buffer_bytes: int = 4 * 1024 * 1024
    """How many bytes one workflow may have buffered for its streams before a write waits."""
    buffer_timeout: float | None = None
    """How long a write waits for room in the buffer before it fails; ``None``: without limit."""
    value_bytes: int = 64 * 1024 * 1024
    """The largest value of a stream, as JSON. For an input, the setting of the engine that writes to it applies."""
    stream_values: int | None = None
    """How many values may be written to one stream in total; ``None``: without limit."""
    stream_bytes: int | None = None
    """How many bytes of JSON may be written to one stream in total; ``None``: without limit."""
    message_bytes: int = 1024 * 1024
    """The largest message to a workflow, as JSON. The setting of the engine that sends applies."""
    inbox_values: int = 10_000
    """How many messages of one topic a workflow may have stored before further ones are refused."""
    inbox_topics: int = 1000
    """On how many topics a workflow takes messages before further topics are refused."""
    on_changed_values: Literal["warn", "block"] = "warn"
    """What happens to a workflow whose replay writes other values to a stream than those on record."""
    compact_every: float | None = 60.0
    """How often the engine looks for streams of ended workflows to store in fewer, larger blocks; ``None``: never."""
    version: str | None = None
    """The version of your code, in your words, to which workflows may be pinned: up to 128 bytes, without a ``/``."""
    codecs: Sequence[PayloadCodec] | None = field(default=None, repr=False)
    """What payloads pass on their way to the database: ``[Compress(), Encrypt(keys)]``. See docs/codecs.md.

    ``None``: they are encrypted if ``DBOSFLOW_ENCRYPTION_KEYS`` is set, and otherwise stay as they are, as with ``()``.
    """
    retention: Retention | None = None
    """How long ended workflows stay; older ones are removed in the background. ``None``: nothing is removed."""
    safety_poll: float = 7.0
    """How often the ends of streams are read although LISTEN is healthy, in case a hint was lost."""
    fast_poll: float = 0.1
    """How often they are read while LISTEN is not healthy."""
    replay_grace: float = 5.0
    """How long a stalled replay waits for an event, a lock or a queue that another thread may still set or fill.

    Then code and records disagree, and the workflow is parked as blocked. A wait that leaves a trace, such as a timer,
    is not limited.
    """
    loop_factory: Callable[[], Any] | None = field(default=None, repr=False)
    """Makes the event loop of ``with Engine(...)``, for example ``uvloop.new_event_loop``; default: asyncio's own."""
    slow_callback: float = 0.1
    """How long a callback may hold up the event loop before the watchdog logs a warning."""

    def __post_init__(self) -> None:
        for name in ("lease", "connect_timeout", "safety_poll", "fast_poll", "replay_grace", "slow_callback"):
            check_seconds(f"setting {name}", getattr(self, name), above_zero=True)
        check_seconds("setting grace", self.grace)
        check_seconds("setting suspend_after", self.suspend_after)
        for name in ("buffer_timeout", "compact_every"):
            if getattr(self, name) is not None:
                check_seconds(f"setting {name}", getattr(self, name), above_zero=True, or_none=True)
        for names, most in _COUNTS.items():
            for name in names:
                check_whole(f"setting {name}", getattr(self, name), 1, most)
        for name in ("stream_values", "stream_bytes"):
            if getattr(self, name) is not None:
                check_whole(f"setting {name}", getattr(self, name), 1, LARGEST_OFFSET, or_none=True)
        check_whole("setting inbox_values", self.inbox_values, LEAST_INBOX, LARGEST_INTEGER)
        check_schema(self.schema)
        if self.on_changed_values not in {"warn", "block"}:
            msg = f'setting on_changed_values={self.on_changed_values!r} must be "warn" or "block"'
            raise ConfigurationError(msg)
        self._check_operation()

    @property
    def chain(self) -> Codecs:
        """The checked ``codecs``."""
        return Codecs.checked(self.codecs)

    def _check_operation(self) -> None:
        object.__setattr__(self, "codecs", self.chain)  # the environment is asked once
        if self.version is not None:
            check_version("setting version", self.version)
        retention: object = self.retention
        if not isinstance(retention, Retention | None):
            msg = f"setting retention={shown(retention)} must be a Retention(finished_after=...), or None"
            raise ConfigurationError(msg)


_COUNTS = {
    (
        "max_recoveries",
        "pool_size",
        "transaction_pool_size",
        "workflow_threads",
        "waiting_threads",
        "step_threads",
    ): LARGEST_INTEGER,
    ("block_values", "inbox_topics"): LARGEST_INTEGER,
    ("batch_bytes", "block_bytes", "value_bytes", "message_bytes"): LARGEST_PART,
    ("buffer_bytes",): LARGEST_OFFSET,
}
"""The settings that are whole numbers, with their largest values."""


def check_identifier(what: str, value: object, *, longest: int = MAX_IDENTIFIER) -> str:
    """``value``, if it is a valid ``what``. Otherwise raises a ``ConfigurationError`` that says what is valid."""
    if not isinstance(value, str) or not value or _size(value) > longest or "\0" in value:
        msg = f"{what} {shown(value)} must be a text of 1 to {longest} bytes in UTF-8, without NUL or lone surrogates"
        raise ConfigurationError(msg)
    return value


def check_schema(name: object) -> str:
    """``name``, if it can name a schema and a channel. Otherwise raises a ``ConfigurationError`` that says why."""
    check_identifier("schema", name, longest=LONGEST_SCHEMA)
    assert isinstance(name, str)
    if not name.isprintable() or name.startswith("pg_"):
        msg = f"schema {shown(name)} must hold no control characters, and not begin with pg_, which Postgres reserves"
        raise ConfigurationError(msg)
    return name


def check_version(what: str, version: object) -> str:
    """``version``, if it can name one. Otherwise raises a ``ConfigurationError``."""
    found = check_identifier(what, version, longest=LONGEST_VERSION)
    if "/" in found or "\x1f" in found:
        msg = f"{what} {found!r} must not hold a / or the character U+001F"
        raise ConfigurationError(msg)
    return found


def check_whole(what: str, value: object, least: int, most: int, *, or_none: bool = False, or_else: str = "") -> int:
    """``value``, if it is a whole number in this range. Otherwise raises a ``ConfigurationError`` that says so.

    ``or_else`` names the alternatives to a number, for the message.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        or_else = "None" if or_none else or_else
        msg = f"{what}={shown(value)} must be a whole number from {least} to {most}{or_else and f', or {or_else}'}"
        raise ConfigurationError(msg)
    return value


def check_seconds(
    what: str, value: object, *, above_zero: bool = False, or_none: bool = False, or_else: str = ""
) -> float:
    """``value``, if it is a valid duration for timers and the database. Otherwise raises a ``ConfigurationError``.

    ``or_else`` names the alternatives to a number, for the message.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= LONGEST_DURATION or (above_zero and not value):  # type: ignore[operator]  # a number
        bounds = f"{'above 0' if above_zero else 'of 0 or more'}, up to {LONGEST_DURATION:.0f} (a hundred years)"
        or_else = "None" if or_none else or_else
        msg = f"{what}={shown(value)} must be a number of seconds {bounds}{or_else and f', or {or_else}'}"
        raise ConfigurationError(msg)
    return value  # type: ignore[return-value]  # a number


def check_duration(what: str, value: object) -> float:
    """``value`` in seconds, if it is a duration above 0: a number or a ``timedelta``. Otherwise raises as above."""
    return check_seconds(what, value.total_seconds() if isinstance(value, timedelta) else value, above_zero=True)


def check_moment(what: str, value: object) -> datetime:
    """``value``, if it is a ``datetime`` with a timezone. Otherwise raises a ``ConfigurationError`` that says so."""
    if not isinstance(value, datetime) or value.utcoffset() is None:
        msg = f"{what}={shown(value)} must be a datetime with a timezone, such as datetime.now(timezone.utc) + ..."
        raise ConfigurationError(msg)
    if value < datetime.min.replace(tzinfo=UTC):
        msg = f"{what}={shown(value)} must be in the year 1 of UTC or later"
        raise ConfigurationError(msg)
    if value.year > _LAST_YEAR:
        msg = f"{what}={shown(value)} must be before the year {_LAST_YEAR + 1}"
        raise ConfigurationError(msg)
    return value


def check_reason(value: object) -> None:
    """Raises a ``ConfigurationError`` unless ``value`` can be the reason of a cancellation, or ``None``."""
    if value is not None:
        check_identifier("a cancellation's reason", value, longest=LONGEST_REASON)


def check_timeout(what: str, value: object) -> None:
    """Raises a ``ConfigurationError`` unless ``value`` is a duration or ``None``."""
    if value is not None:
        check_seconds(what, value, or_none=True)


def _seconds(duration: timedelta | float) -> float:
    return duration.total_seconds() if isinstance(duration, timedelta) else duration


def _size(text: str) -> float:
    """The size in bytes of UTF-8; infinite if the text cannot be encoded."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return float("inf")


def shown(value: object) -> str:
    """``value`` in a message that says what is wrong with it: as Python shows it, and no longer than a line."""
    try:
        text = repr(value)
    except ValueError:  # an integer with more digits than Python prints
        text = "a number of thousands of digits"
    return text if len(text) < 80 else f"{text[:77]}..."  # noqa: PLR2004 (fits a line)
