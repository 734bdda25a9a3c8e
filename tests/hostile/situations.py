"""Databases as they come: settings of roles, databases and environments, locales, and encodings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.store.settings import HOSTILE, PLANS

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Situation:
    """How a database is made, and what is set for sessions with it."""

    name: str
    made: str = ""
    """The options of its CREATE DATABASE."""
    settings: Mapping[str, str] = field(default_factory=dict)
    of_role: bool = False
    """Whether these are the role's in this database, which go before the database's."""
    environment: Mapping[str, str] = field(default_factory=dict)
    refused: bool = False
    """Whether it is to be refused in words."""


_OTHERS = {
    "TimeZone": "America/St_Johns",
    "transaction_timeout": "50ms",
    "statement_timeout": "5ms",
    "lock_timeout": "1ms",
    "idle_session_timeout": "100ms",
    "idle_in_transaction_session_timeout": "50ms",
    "default_transaction_isolation": "repeatable read",
    "extra_float_digits": "-15",
    "DateStyle": "SQL, DMY",
    "client_encoding": "SQL_ASCII",
    "client_min_messages": "debug5",
    "quote_all_identifiers": "on",
    "transform_null_equals": "on",
    "plan_cache_mode": "force_custom_plan",
    "work_mem": "64kB",
    "from_collapse_limit": "1",
    "join_collapse_limit": "1",
    "geqo_threshold": "2",
    "jit_above_cost": "0",
    "default_toast_compression": "pglz",
    "client_connection_check_interval": "10ms",
    "synchronize_seqscans": "on",
    "lc_time": "C.UTF-8",
    "xmloption": "document",
    "bytea_output": "escape",
    "restrict_nonsystem_relation_kind": "view, foreign-table",
    "password_encryption": "md5",
}
_NO_PLANS = {name: "off" for name in PLANS.split() if name.startswith("enable_")}

_OPTIONS = " ".join(f"-c {name}={value.replace(' ', '')}" for name, value in HOSTILE.items())

SITUATIONS = [
    *(Situation(f"{name} = {value}", settings={name: value}) for name, value in HOSTILE.items()),
    *(Situation(f"{name} = {value}", settings={name: value}) for name, value in _OTHERS.items()),
    Situation("all at once", settings=HOSTILE),
    Situation("all at once, of the role", settings=HOSTILE, of_role=True),
    Situation("no plan is liked", settings=_NO_PLANS),
    Situation("by PGOPTIONS", environment={"PGOPTIONS": _OPTIONS}),
    Situation(
        "by variables", environment={"PGDATESTYLE": "German", "PGTZ": "Asia/Kolkata", "PGCLIENTENCODING": "LATIN1"}
    ),
    *(
        Situation(f"made with {made}", made=made)
        for made in (
            "ENCODING 'UTF8' LOCALE 'C.UTF-8'",
            "ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'und-u-ks-level1' LOCALE 'C'",
            "ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'de-u-co-phonebk' LOCALE 'C'",
            "ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'tr' LOCALE 'C'",
            "ENCODING 'UTF8' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'",
        )
    ),
    *(
        Situation(f"made with {encoding}", made=f"ENCODING '{encoding}' LOCALE 'C'", refused=True)
        for encoding in ("LATIN1", "LATIN9", "SQL_ASCII", "EUC_JP", "WIN1252", "KOI8R", "MULE_INTERNAL")
    ),
]
