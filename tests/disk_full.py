"""Fills the disk under a working engine, for real: ``python -m tests.disk_full``.

The tables move to a file system of 32 MB (a tmpfs, so this needs root and Linux), which is filled while workflows run;
when there is room again everything must go on, whole. Not a part of ``.ci/run``, where a trigger says that the disk is
full. The exit status is 0 if all is well, 1 if not, 3 if a file system cannot be mounted here.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

import psycopg

from dbosflow import Engine
from dbosflow._store.migrate import ensure_schema
from tests.behaviour import ledger
from tests.behaviour.load import IDS, check_all, start_all
from tests.server import own_server
from tests.support import eventually

MISSING = 3
TABLES = ("workflow", "step", "stream_block")


def main() -> int:
    """Mounts, fills, frees, compares."""
    with ExitStack() as resources:
        directory = Path(resources.enter_context(TemporaryDirectory(prefix="dbosflow-disk-")))
        small = directory / "small"
        small.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "none", small], check=False).returncode:
            print("no file system can be mounted here: run this as root, on Linux, where that is allowed")
            return MISSING
        resources.callback(lambda: subprocess.run(["umount", "--lazy", small], check=False))
        os.environ[ledger.VARIABLE] = str(directory / "ledger")
        server = resources.enter_context(own_server())
        ensure_schema(server.url)
        _move_tables(server.url, directory, small)
        log = resources.enter_context(TemporaryFile("w+"))
        logging.getLogger("dbosflow").addHandler(logging.StreamHandler(log))
        engine = resources.enter_context(Engine(server.url))
        start_all(engine, IDS)
        eventually(lambda: len(ledger.noted()) > len(IDS))
        ballast = small / "ballast"
        with ballast.open("wb", buffering=0) as filling:
            eventually(lambda: _fill(filling.fileno()) and _said(log.fileno()))
        print(f"the disk was full at step {len(ledger.noted())}; now there is room again", flush=True)
        ballast.unlink()
        check_all(server.url, engine, IDS)
    print("PASS everything went on, and nothing is lost or doubled")
    return 0


def _move_tables(url: str, directory: Path, small: Path) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        ((data,),) = connection.execute("SHOW data_directory").fetchall()
        owner = Path(data).stat()
        directory.chmod(0o755)
        os.chown(small, owner.st_uid, owner.st_gid)
        connection.execute(f"CREATE TABLESPACE small LOCATION '{small}'".encode())
        for table in TABLES:
            connection.execute(f"ALTER TABLE dbosflow.{table} SET TABLESPACE small".encode())


def _fill(descriptor: int) -> bool:
    """Writes until there is no room; whether there is none."""
    try:
        while os.write(descriptor, bytes(4096)):
            pass
    except OSError:
        return True
    return False


def _said(descriptor: int) -> bool:
    return b"No space left on device" in os.pread(descriptor, 1 << 20, 0)


if __name__ == "__main__":
    sys.exit(main())
