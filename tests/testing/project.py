"""A project of a user's, whose tests run in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]


WITH_ASYNCIO = ("-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function")
"""Options of a project that has pytest-asyncio; without them that plugin stays out of it."""


def run_pytest(project: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs the tests of a project, with nothing of this one's configuration."""
    plugins = () if "asyncio_mode=auto" in options else ("-p", "no:asyncio")
    environment: Mapping[str, str] = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugins, "-Werror", *options],
        cwd=project,
        env={name: value for name, value in environment.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
