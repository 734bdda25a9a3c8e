"""What every session with Postgres is set to, whatever a role, a database, a URL or the environment says.

Our statements mean what they mean under these settings only: times are read as ISO, floats with all their digits, texts
as UTF-8; a commit is flushed; nothing but the engine ends a statement or a session; names are those of ``pg_catalog``.
They get there in one of three ways (``_store.connect`` takes them):

```text
by the startup packet   `options`, behind those of the URL or of PGOPTIONS: these hold for all that is not decided
                        here. It costs no round trip
by one statement        where the way to the server takes no options, and the session is ours all the same; and
                        for what PGDATESTYLE or PGTZ have overridden
by the role             behind a pooler in transaction mode, where nothing that is set stays ours: what is in force
                        is read when an engine opens, and what is wrong is refused
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

ENCODING = "UTF8"


class _Setting(NamedTuple):
    """A setting, and what is wrong where it has another value that does not fit. Most values fit some of them."""

    value: str
    wrong: str = ""
    fits: Callable[[str], bool] = lambda _: True


def _only(value: str, wrong: str) -> _Setting:
    return _Setting(value, wrong, value.__eq__)


def _names_are_ours(search_path: str) -> bool:
    """Whether no schema comes before ``pg_catalog``, which is searched first where it is not named."""
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
    # Rows that a policy hides would be steps that run again: an error says that there is a policy.
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
"""What a server tells by itself when a session begins, and with each change."""
OVERRIDDEN = frozenset({"DateStyle", "TimeZone"})
"""What libpq sends as PGDATESTYLE and PGTZ have it; a server takes that after the options."""

# Plans that were made while a table was empty stay for as long as nobody analyzes it: they scan no table.
POOL: Mapping[str, str] = {"enable_seqscan": "off", "jit": "off"}
"""Besides the rest, of the pool's sessions."""
WORKER: Mapping[str, str] = {"plan_cache_mode": "force_generic_plan", **POOL}
"""Of a worker lease's session: one plan for every size of batch, of index probes."""
READER: Mapping[str, str] = WORKER
"""Of the hub's, whose fetches would take longer to plan than to run."""
NOTIFIER: Mapping[str, str] = {"synchronous_commit": "off"}
"""Of the notifier's: hints need no flush."""


def wanted(*special: Mapping[str, str], idle: float | None = None) -> dict[str, str]:
    """Every setting of a session, with what is ``special`` to it.

    ``idle`` is after how many seconds a transaction that does nothing ends, and what it has locked is free.
    """
    settings = {name: setting.value for name, setting in _EVERY.items()}
    for some in special:
        settings |= some
    if idle is not None:
        settings["idle_in_transaction_session_timeout"] = str(max(1, round(idle * 1000)))
    return settings


def startup(settings: Mapping[str, str], given: str = "") -> dict[str, str]:
    """The parameters of a connection whose session is to have these settings; ``given`` are the user's own options."""
    ours = " ".join(f"-c {name}={_escaped(value)}" for name, value in settings.items() if name != "client_encoding")
    if (len(given) - len(given.rstrip("\\"))) % 2:
        given = given[:-1]  # it would take the space that follows for a part of a value
    return {"client_encoding": ENCODING, "options": f"{given} {ours}".lstrip()}


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(" ", "\\ ")


def differing(settings: Mapping[str, str], found: Mapping[str, str | None]) -> dict[str, str]:
    """Those of the settings of every session that a server has, and has otherwise."""
    return {
        name: settings[name]
        for name in _EVERY
        if (value := found.get(name)) is not None and _plain(value) != _plain(settings[name])
    }


def reported(status: Callable[[str], str | None]) -> dict[str, str | None]:
    """What a server has told of a session by itself."""
    return {name: status(name) for name in _REPORTED}


def _plain(value: str) -> str:
    return value.replace(" ", "")


def wrong(found: Mapping[str, str | None]) -> dict[str, str]:
    """Of what is in force in a session, the settings that do not fit, and what is wrong with each."""
    unfit = {
        name: f"{name} is {value!r}: {setting.wrong}"
        for name, setting in _EVERY.items()
        if (value := found.get(name)) is not None and not setting.fits(value)
    }
    if found.get("synchronous_commit") == "local" and not found.get("synchronous_standby_names"):
        unfit.pop("synchronous_commit", None)  # then there is nobody else to wait for
    return unfit


def mending(names: Collection[str], role: str, database: str) -> list[str]:
    """The statements that give a role these settings, whatever else says otherwise. Both names are quoted already."""
    statements = [f"ALTER ROLE {role} IN DATABASE {database} SET {name} = {_literal(name)};" for name in names]
    if "default_transaction_read_only" in names:
        return ["BEGIN READ WRITE;", *statements, "COMMIT;"]
    return statements


def _literal(name: str) -> str:
    value = _EVERY[name].value
    return value if name == "search_path" else f"'{value}'"  # a quoted path is the name of one schema


ASKED = (*_EVERY, "server_encoding", "synchronous_standby_names")
"""What is asked of a server, by name."""
