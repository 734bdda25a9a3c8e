"""A Postgres of the run's own, which may be stopped in every way and started again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg

from dbosflow._embedded.account import own_account, server_account
from dbosflow._embedded.binaries import find_binaries
from dbosflow._embedded.deadline import Deadline
from dbosflow._embedded.installations import sources
from dbosflow._embedded.keeper import ENVIRONMENT
from tests.chaos.nodes.reaper import Reaper
from tests.support import eventually

if TYPE_CHECKING:
    from typing import Self

PATIENCE = 60.0
_PORT = 5432
_ROLE = "dbosflow"

STOPS = {"stop fast": signal.SIGINT, "stop immediate": signal.SIGQUIT}
"""What the postmaster takes its orders by."""

_SETTINGS = {
    "listen_addresses": "",
    "port": _PORT,
    "max_connections": 150,  # a fault takes all of them
    "shared_buffers": "128MB",
    "fsync": "off",  # processes die here, the machine does not
    "autovacuum_naptime": "5s",  # rows go as fast as they come: so must their room
    "autovacuum_vacuum_cost_delay": 0,
    "dynamic_shared_memory_type": "mmap",
    "log_line_prefix": "%m [%p] %a ",
    "timezone": "UTC",
}


class Postgres:
    """The binaries of the embedded server, under a parent that stops them as roughly as it likes.

    Reached by a socket in a directory of its own, where the kernel tells the server who connects (``peer``).
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or Path(tempfile.mkdtemp(prefix="dbosflow-chaos-"))
        self.root.mkdir(exist_ok=True)
        self.root.chmod(0o755)  # the server's account must get there
        self.data = self.root / "data"
        self.log = self.root / "postgres.log"
        self.account = server_account(self.data)
        self._bin = find_binaries(self.account, self.data, None, Deadline(PATIENCE))
        self._process: subprocess.Popen[bytes] | None = None
        self._reaper: Reaper | None = None

    @property
    def socket(self) -> Path:
        """Its socket."""
        return self.root / "home" / f".s.PGSQL.{_PORT}"

    def url(self, name: str) -> str:
        """Its address for a program, whose sessions carry the ``name``."""
        host = quote(str(self.socket.parent), safe="")
        return f"postgresql://{_ROLE}@/postgres?host={host}&port={_PORT}&application_name={name}"

    @property
    def running(self) -> bool:
        """Whether it was started, and not stopped."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Its first process."""
        assert self._process
        return self._process.pid

    def program(self, name: str) -> str:
        """One of the programs that came with it."""
        return self._bin.program(name)

    def client_program(self, name: str) -> str:
        """One of the programs that came with it, for us to run: a copy for the server's account has none of them."""
        place = self._bin.bin_dir.relative_to(self._bin.base)
        installations = (installation for source in sources() for installation in source)
        return next(each.program(name) for each in installations if each.bin_dir.relative_to(each.base) == place)

    def make(self) -> None:
        """Makes the cluster."""
        self.make_directories()
        initdb = [self.program("initdb"), "-D", str(self.data), f"--username={_ROLE}"]
        self.account.run([*initdb, "--encoding=UTF8", "--locale=C", "--no-sync", "--auth=peer"])
        names = sorted({own_account().name, self.account.name})  # the server's own: of a standby, or of a pooler
        self.write("pg_hba.conf", "local all,replication all peer map=chaos\n")
        self.write("pg_ident.conf", "".join(f'chaos "{name}" {_ROLE}\n' for name in names))

    def make_directories(self) -> None:
        """Makes empty ones for the data and the socket."""
        for directory in (self.data, self.socket.parent):
            directory.mkdir(exist_ok=True)
            self._give_away(directory)
        self.data.chmod(0o700)

    def write(self, name: str, text: str) -> None:
        """Writes one of the cluster's files."""
        path = self.data / name
        path.write_text(text)
        self._give_away(path)

    def give_away_data(self) -> None:
        """Makes the whole cluster the server's."""
        for path in (self.data, *self.data.rglob("*")):
            self._give_away(path)

    def _give_away(self, path: Path) -> None:
        if self.account.foreign:
            os.chown(path, self.account.uid, self.account.gid)

    def start(self) -> None:
        """Starts the server; returns when it answers."""
        settings = {**_SETTINGS, "unix_socket_directories": str(self.socket.parent)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        foreign = self.account.foreign
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self.program("postgres"), "-D", str(self.data), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=ENVIRONMENT,
                start_new_session=True,
                user=self.account.uid if foreign else None,
                group=self.account.gid if foreign else None,
                extra_groups=[] if foreign else None,
            )
        eventually(self.answers, timeout=PATIENCE)

    def answers(self) -> bool:
        """Whether it takes connections."""
        try:
            psycopg.connect(self.url("looking"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, how: str) -> None:
        """Stops it in one of the ways of ``STOPS``; returns when it is gone."""
        assert self._process
        self._process.send_signal(STOPS[how])
        self.forget()

    def forget(self) -> None:
        """Waits for the end of its first process."""
        assert self._process
        self._process.wait(PATIENCE)
        self._process = None

    def crash_backend(self, pid: int) -> None:
        """Kills one of its processes, at which the server ends all sessions and recovers; returns when it answers."""
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)  # until the postmaster has noticed: part of the fault, nothing waits for it
        eventually(self.answers, timeout=PATIENCE)

    def discard(self) -> None:
        """Removes all that it left."""
        shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self) -> Self:
        self._reaper = Reaper(self.root)
        self.make()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.stop("stop immediate")
        if self._reaper is not None:
            self._reaper.close()
