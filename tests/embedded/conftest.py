"""Homes for servers: of the account that runs the tests, and under root of one without privileges as well."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.embedded.processes import Account, Home

if TYPE_CHECKING:
    from collections.abc import Iterator

_ACCOUNTS = ["own account", "no privileges"] if os.geteuid() == 0 else ["own account"]


@pytest.fixture(params=_ACCOUNTS)
def account(request: pytest.FixtureRequest) -> Account:
    """The accounts that the users run as: what is promised to root is promised to everybody else."""
    return Account.own() if request.param == "own account" else Account.named("nobody")


@pytest.fixture
def empty_home(account: Account) -> Iterator[Home]:
    """A home that nobody has used."""
    # Not tmp_path, which nobody but the tests' own account may enter.
    path = Path(tempfile.mkdtemp(prefix="dbosflow-test-")).resolve()
    path.chmod(0o755)
    os.chown(path, account.uid, account.gid)
    home = Home(account, path)
    yield home
    home.close()


@pytest.fixture
def home(empty_home: Home, clusters: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home whose data directory was used before, by a copy, which takes less time than to initialise one."""
    name = empty_home.account.name
    if name in clusters:
        subprocess.run(["cp", "-a", clusters[name], empty_home.data_dir], check=True)
    else:
        empty_home.user().leave()
        empty_home.expect_nobody()
        clusters[name] = tmp_path_factory.mktemp("cluster") / "data"
        subprocess.run(["cp", "-a", empty_home.data_dir, clusters[name]], check=True)
    return empty_home


@pytest.fixture(scope="session")
def clusters() -> dict[str, Path]:
    """Initialised data directories by the name of the account they belong to."""
    return {}
