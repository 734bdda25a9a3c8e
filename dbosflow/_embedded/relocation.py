"""Copies Postgres for an account that cannot reach the original, for example in a venv in root's home.

Copies are in ``/var/cache/dbosflow``, one for each version and build. They belong to root: the account can run them and
cannot change them. They are made under a temporary name and renamed when they are complete and on disk.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dbosflow._embedded.directories import make_system_directory
from dbosflow._embedded.locks import FileLock
from dbosflow.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dbosflow._embedded.account import Account
    from dbosflow._embedded.deadline import Deadline
    from dbosflow._embedded.installations import Installation

SYSTEM_CACHE = Path("/var/cache/dbosflow")

_HALF_MADE = "half-made-"
_PROGRAMS = ("postgres", "initdb")

_logger = logging.getLogger("dbosflow.embedded")


def relocate(installation: Installation, account: Account, deadline: Deadline) -> Installation:
    """The installation as a copy that ``account`` can run. The copy is made unless it exists.

    Raises ``ConfigurationError`` or ``OSError`` if it cannot be made.
    """
    if not installation.parts:
        message = f"the user cannot enter {installation.bin_dir}"
        raise ConfigurationError(message)
    cache = make_system_directory(SYSTEM_CACHE, account)
    target = cache / _fingerprint(installation)
    lock = FileLock(cache / "lock")
    while not target.exists():
        if lock.try_acquire():
            try:
                _copy(installation, target)
            finally:
                lock.release()
        else:
            deadline.pause()
    return replace(installation, bin_dir=target / installation.bin_dir.relative_to(installation.base), base=target)


def _fingerprint(installation: Installation) -> str:
    with Path(installation.program("postgres")).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _copy(installation: Installation, target: Path) -> None:
    for half_made in target.parent.glob(f"{_HALF_MADE}*"):
        shutil.rmtree(half_made)
    if target.exists():
        return
    _logger.info("copying %s to %s, for the server's account", installation.bin_dir.parent, target)
    temporary = Path(tempfile.mkdtemp(prefix=_HALF_MADE, dir=target.parent))
    for part in installation.parts:
        if (installation.base / part).is_dir():
            shutil.copytree(
                installation.base / part,
                temporary / part,
                symlinks=True,
                ignore=_unneeded(installation),
                copy_function=_copy_readable,
            )
    for directory, _, _ in os.walk(temporary):
        Path(directory).chmod(0o755)
    os.sync()
    temporary.rename(target)


def _unneeded(installation: Installation) -> Callable[[str, list[str]], Iterable[str]]:
    patterns = shutil.ignore_patterns("include", "pkgconfig", "*.a", "__pycache__")

    def choose(directory: str, names: list[str]) -> Iterable[str]:
        if Path(directory) == installation.bin_dir:
            return [name for name in names if name not in _PROGRAMS]
        return patterns(directory, names)

    return choose


def _copy_readable(source: str, target: str) -> str:
    shutil.copyfile(source, target)
    executable = Path(source).stat().st_mode & 0o100
    Path(target).chmod(0o755 if executable else 0o644)
    return target
