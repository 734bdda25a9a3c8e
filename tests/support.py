"""What tests in several places need."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode

from psycopg.conninfo import conninfo_to_dict

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from dbosflow import Engine

T = TypeVar("T")

TIMEOUT = 60.0
"""Seconds after which what was waited for is not going to happen."""


def eventually(probe: Callable[[], T], *, timeout: float = TIMEOUT) -> T:
    """The first truthy answer of ``probe``; fails with its last answer once ``timeout`` seconds are over."""
    deadline = time.monotonic() + timeout
    while not (answer := probe()):
        _check_deadline(deadline, answer, timeout)
        time.sleep(0.01)
    return answer


async def eventually_async(probe: Callable[[], T], *, timeout: float = TIMEOUT) -> T:  # noqa: ASYNC109 (as above)
    """The same for code on a loop, which goes on meanwhile. ``probe`` is called there, so it must not block."""
    deadline = time.monotonic() + timeout
    while not (answer := probe()):
        _check_deadline(deadline, answer, timeout)
        await asyncio.sleep(0.001)
    return answer


def _check_deadline(deadline: float, answer: object, timeout: float) -> None:
    if time.monotonic() > deadline:
        message = f"still {answer!r} after {timeout:g} s"
        raise AssertionError(message)


def listens(engine: Engine) -> bool:
    """Whether the engine hears of others. When it begins to, all its services look for what they may have missed."""
    listener: Any = engine._core.services.wakeups.on_wanted
    return bool(listener.__self__.healthy.is_set())


@contextmanager
def killed_after(seconds: float, process: subprocess.Popen[Any]) -> Iterator[None]:
    """Kills ``process`` if the block takes longer: code in there that reads its output comes to its end, and fails."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def with_parameters(url: str, **changed: str) -> str:
    """``url`` with other connection parameters, such as ``dbname`` or ``user``; always in the form of a URL."""
    parameters = {name: str(value) for name, value in conninfo_to_dict(url).items()} | changed
    database = parameters.pop("dbname", "")
    return f"postgresql:///{quote(database, safe='')}?{urlencode(parameters, quote_via=quote)}"


def password_of(url: str) -> str:
    """The password in ``url``; one that will do where the server asks for none."""
    return str(conninfo_to_dict(url).get("password") or "the-secret")
