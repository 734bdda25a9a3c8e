"""Runs the tests on a Postgres in a container: ``python -m tests.testcontainer [PYTEST ARGUMENTS]``.

The image is built from ``tests/Dockerfile``. Without arguments it runs ``tests/store``. Not a part of ``.ci/run``: it
needs a Docker engine. The exit status is that of pytest, or 3 if no engine answers.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from docker.errors import DockerException
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.image import DockerImage

from tests.conftest import URL_VARIABLE

MISSING = 3


def main() -> int:
    """Builds the image, starts the server, runs the tests."""
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")  # its image could not be pulled everywhere
    try:
        built = DockerImage(Path(__file__).parent, tag="dbosflow-postgres:tests", clean_up=False)
    except DockerException as error:
        print(f"no Docker engine answers here, and this needs one ({error}): start one, or run pytest without it")
        return MISSING
    with built as image, PostgresContainer(str(image), username="dbosflow", dbname="dbosflow", driver=None) as server:
        environment = os.environ | {URL_VARIABLE: server.get_connection_url()}
        command = [sys.executable, "-m", "pytest", *(sys.argv[1:] or ["tests/store"])]
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
