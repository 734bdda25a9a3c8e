"""The settings of every session with Postgres, whatever a role, a database, a URL or the environment says.

Our statements rely on these settings: times are read as ISO, floats with all their digits, texts as UTF-8; a commit is
flushed; nothing but the engine ends a statement or a session; names are those of ``pg_catalog``. There are three ways
to make the settings (``_store.connect`` chooses):

```text
by the startup packet   `options`, after those of the URL or of PGOPTIONS, which stay in force for all other settings.
                        Needs no round trip
by one statement        if the connection takes no options, and the session is ours nevertheless; also for settings
                        that PGDATESTYLE or PGTZ have overridden
by the role             behind a pooler in transaction mode, where settings of a session do not stay with us. The
                        settings in force are read when an engine opens, and refused if they do not fit
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

ENCODING = "UTF8"


class _Setting(NamedTuple):
    """A setting: its value, what goes wrong with a value that does not fit, and a test of which values fit."""

    value: str
    wrong: str = ""
    fits: Callable[[str], bool] = lambda _: True


def _only(value: str, wrong: str) -> _Setting:
    return _Setting(value, wrong, value.__eq__)


def _names_are_ours(search_path: str) -> bool:
    """Whether no schema comes before ``pg_catalog``, which is searched first if it is not named."""
    path = [name.strip() for name in search_path.split(",")]
    return "pg_catalog" not in path or path[0] == "pg_catalog"


_EVERY: Mapping[str, _Setting] = {
    "client_encoding": _only(ENCODING, "texts come back as others"),
    "DateStyle": _Setting("ISO,YMD", "times cannot be read", lambda value: value.startswith("ISO")),
    "IntervalStyle": _Setting("postgres"),
    "TimeZone": _Setting("UTC"),
    "extra_float_digits": _Setting("1", "numbers lose digits, so timers end early", lambda value: int(value) > 0),
    "bytea_output": _Setting("hex"),
    "standard_conforming_strings": _only("on", "literals mean something else"),
    "array_nulls": _only("on", "a null in an array becomes a text"),
    "search_path": _Setting("pg_catalog,pg_temp", "functions and types may be somebody else's", _names_are_ours),
    # If a policy hid rows, their steps would run again. With this setting the statement fails and names the policy.
    "row_security": _Setting("off"),
    "exit_on_error": _only("off", "any error ends the session"),
    "statement_timeout": _only("0", "it ends batches, and the reading of long histories"),
    "transaction_timeout": _only("0", "it ends batches, and the reading of long histories"),
    "lock_timeout": _only("0", "it ends batches"),
    "idle_session_timeout": _Setting("0"),
    "default_transaction_isolation": _only("read committed", "statements fail to serialize, or read what is over"),
    "default_transaction_read_only": _only("off", "nothing can be written"),
    "synchronous_commit": _Setting(
        "on", "a crash or a failover loses what was acknowledged", lambda value: value not in {"off", "local"}
    ),
}

_REPORTED = ("client_encoding", "DateStyle", "IntervalStyle", "TimeZone", "standard_conforming_strings")
"""The settings that a server reports by itself when a session begins, and with each change."""
OVERRIDDEN = frozenset({"DateStyle", "TimeZone"})
"""The settings that libpq sends from PGDATESTYLE and PGTZ. A server applies these after the options."""

# A plan that was made while a table was small stays until somebody analyzes it again: it must neither scan a table, nor
# walk over a whole index that has little in it. So a row costs as much as a page, and a comparison next to nothing.
POOL: Mapping[str, str] = {
    "enable_seqscan": "off",
    "jit": "off",
    "seq_page_cost": "0.01",
    "random_page_cost": "0.04",
    "cpu_index_tuple_cost": "0.01",
    "cpu_tuple_cost": "0.01",
    "cpu_operator_cost": "0.000025",
}
"""Additional settings of the pool's sessions."""
WORKER: Mapping[str, str] = {"plan_cache_mode": "force_generic_plan", **POOL}
"""Additional settings of a worker lease's session: one generic plan of index probes for every size of batch."""
READER: Mapping[str, str] = WORKER
"""Additional settings of the hub's session, whose fetches would take longer to plan than to run."""
IN_ORDER: Mapping[str, str] = {"enable_seqscan": "off", "enable_bitmapscan": "off", "enable_sort": "off"}
"""For the statements of a listing: to read an index in its order and stop, and not to sort what the table holds."""
NOTIFIER: Mapping[str, str] = {"synchronous_commit": "off"}
"""Additional settings of the notifier's session: hints need no flush."""


def wanted(*special: Mapping[str, str], idle: float | None = None) -> dict[str, str]:
    """All settings of a session, including those that are ``special`` to it.

    ``idle`` is the number of seconds after which an idle transaction is ended, so that its locks are free.
    """
    settings = {name: setting.value for name, setting in _EVERY.items()}
    for some in special:
        settings |= some
    if idle is not None:
        settings["idle_in_transaction_session_timeout"] = str(max(1, round(idle * 1000)))
    return settings


def startup(settings: Mapping[str, str], given: str = "") -> dict[str, str]:
    """The parameters of a connection with these settings. ``given`` are the user's own options."""
    ours = " ".join(f"-c {name}={_escaped(value)}" for name, value in settings.items() if name != "client_encoding")
    if (len(given) - len(given.rstrip("\\"))) % 2:
        given = given[:-1]  # the backslash would make the following space a part of a value
    return {"client_encoding": ENCODING, "options": f"{given} {ours}".lstrip()}


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(" ", "\\ ")


def differing(settings: Mapping[str, str], found: Mapping[str, str | None]) -> dict[str, str]:
    """The settings that have another value on a server than the given one, with the given value."""
    return {
        name: settings[name]
        for name in _EVERY
        if (value := found.get(name)) is not None and _plain(value) != _plain(settings[name])
    }


def reported(status: Callable[[str], str | None]) -> dict[str, str | None]:
    """The settings that a server has reported by itself."""
    return {name: status(name) for name in _REPORTED}


def _plain(value: str) -> str:
    return value.replace(" ", "")


def wrong(found: Mapping[str, str | None]) -> dict[str, str]:
    """The settings in force in a session that do not fit, each with what is wrong with it."""
    unfit = {
        name: f"{name} is {value!r}: {setting.wrong}"
        for name, setting in _EVERY.items()
        if (value := found.get(name)) is not None and not setting.fits(value)
    }
    if found.get("synchronous_commit") == "local" and not found.get("synchronous_standby_names"):
        unfit.pop("synchronous_commit", None)  # there is no standby to wait for
    return unfit


def unplanned(found: Mapping[str, str | None]) -> list[str]:
    """The planner's settings that have another value in a session than in those of the pool."""
    return [name for name, wish in POOL.items() if (value := found.get(name)) is not None and not _alike(value, wish)]


def _alike(value: str, wish: str) -> bool:
    try:
        return float(value) == float(wish)
    except ValueError:
        return value == wish


def mending(names: Collection[str], role: str, database: str) -> list[str]:
    """The statements that make these settings for a role, above all other sources. Both names are quoted already."""
    statements = [f"ALTER ROLE {role} IN DATABASE {database} SET {name} = {_literal(name)};" for name in names]
    if "default_transaction_read_only" in names:
        return ["BEGIN READ WRITE;", *statements, "COMMIT;"]
    return statements


def _literal(name: str) -> str:
    value = POOL[name] if name in POOL else _EVERY[name].value
    return value if name == "search_path" else f"'{value}'"  # a quoted path is the name of one schema


ASKED = (*_EVERY, *POOL, "server_encoding", "synchronous_standby_names")
"""The settings that are queried from a server, by name."""
