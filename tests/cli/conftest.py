"""A shell for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.shell import Shell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def bare_shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell in which no database is named."""
    directory = tmp_path / "shell"
    directory.mkdir()
    shell = Shell(directory)
    try:
        yield shell
    finally:
        shell.close()


@pytest.fixture
def shell(bare_shell: Shell, database_url: str) -> Shell:
    """A shell whose commands use a database of the test's own."""
    bare_shell.use(database_url)
    return bare_shell
