"""Runs the tests on each supported Python that is here: ``python -m tests.pythons [3.12 3.13] [-- PYTEST ARGUMENTS]``.

Each in a fresh environment. Interpreters are looked for on the path, as ``python3.12``, and among pyenv's. It takes as
long as the tests do, as many times as there are versions: run it before each release. ``.ci/run`` runs a ``--sample``:
on one other Python than its own, if one is here, the tests of what differs most between versions, which is tasks.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SUPPORTED = ("3.11", "3.12", "3.13", "3.14")
ROOT = Path(__file__).parent.parent
SAMPLE = (
    "tests/replay/test_branches.py",
    "tests/replay/test_single_branch.py",
    "tests/replay/test_cancelled_operations.py",
)
SAMPLE_NEEDS = ("hypothesis", "pytest", "pytest-asyncio", "pytest-timeout", "pytest-xdist")
"""Of the extra ``dev``: all of it would take longer to install than the sample takes."""


def found(version: str) -> str | None:
    """The interpreter of a version, if there is one."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [shutil.which(f"python{version}"), *map(str, pyenv.glob(f"versions/{version}.*/bin/python"))]
    for candidate in filter(None, candidates):
        asked = [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        if subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() == version:
            return candidate
    return None


def run(python: str, version: str, arguments: list[str], packages: Sequence[str] = (f"{ROOT}[dev]",)) -> bool:
    """Whether the tests pass on this interpreter, in an environment with the first package as it is here."""
    with tempfile.TemporaryDirectory(prefix="dbosflow-python-") as directory:
        print(f"==> Python {version}: {python}", flush=True)
        subprocess.run([python, "-m", "venv", directory], check=True)
        within = Path(directory) / "bin" / "python"
        subprocess.run([within, "-m", "pip", "install", "-qq", "-e", *packages], check=True)
        return subprocess.run([within, "-m", "pytest", *arguments], cwd=ROOT, check=False).returncode == 0


def sample() -> int:
    """Runs a part of the tests on the newest other Python that is here."""
    own = "{}.{}".format(*sys.version_info)
    for version in reversed(SUPPORTED):
        python = None if version == own else found(version)
        if python is not None:
            return 0 if run(python, version, ["-q", *SAMPLE], (f"{ROOT}[embedded]", *SAMPLE_NEEDS)) else 1
    print(f"==> no other Python than {own} is here: no sample of the tests on one")
    return 0


def main() -> int:
    """Runs the versions named on the command line, or all that are here."""
    if sys.argv[1:] == ["--sample"]:
        return sample()
    given, _, arguments = " ".join(sys.argv[1:]).partition("--")
    interpreters = {version: found(version) for version in given.split() or SUPPORTED}
    passed = {
        version: python is not None and run(python, version, arguments.split())
        for version, python in interpreters.items()
        if python is not None or given
    }
    for version, python in interpreters.items():
        outcome = "not here" if python is None else "passed" if passed[version] else "FAILED"
        print(f"Python {version}: {outcome}")
    return 0 if passed and all(passed.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
