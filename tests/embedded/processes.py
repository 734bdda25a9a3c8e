"""Processes that use embedded servers, each as an account that may be another than that of the tests."""

from __future__ import annotations

import atexit
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

import dbosflow
from dbosflow._embedded import EmbeddedServer
from tests.support import eventually, killed_after

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 60.0
LONGEST_SILENCE = 75.0
"""Seconds that a user may take for an answer: a minute of them a server may take to start."""

# Told by its input what to do: a line of SQL is answered in JSON, the end of the input means to go on.
_PREAMBLE = """
import json, os, psycopg, subprocess, sys
from pathlib import Path
from dbosflow._embedded import EmbeddedServer

def say(answer):
    print(json.dumps(answer), flush=True)

def obey(server):
    say(server.url)
    for line in sys.stdin:
        with psycopg.connect(server.url, autocommit=True) as connection:
            cursor = connection.execute(line)
            say(cursor.fetchall() if cursor.description else None)
"""

JOIN = """
server = EmbeddedServer.join(Path(sys.argv[1]))
obey(server)
server.leave()
"""

EPHEMERAL = """
with EmbeddedServer.ephemeral() as server:
    obey(server)
"""


@dataclass(frozen=True)
class Account:
    """The account that a process runs as."""

    name: str
    uid: int
    gid: int

    @classmethod
    def named(cls, name: str) -> Account:
        """An account of the system."""
        entry = pwd.getpwnam(name)
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)

    @classmethod
    def own(cls) -> Account:
        """The account of the tests."""
        return cls.named(pwd.getpwuid(os.geteuid()).pw_name)

    def python(self, script: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Run a Python script as this account."""
        foreign = self.uid != os.geteuid()
        return subprocess.Popen(
            [_interpreter(self), "-c", script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env={**os.environ, "PYTHONPATH": _packages(self), **environment},
            user=self.uid if foreign else None,
            group=self.gid if foreign else None,
            extra_groups=[] if foreign else None,
        )


@cache
def _packages(account: Account) -> str:
    """What the account imports: for another one a copy, since ours may be where it cannot get to."""
    checkout = Path(dbosflow.__file__).parent.parent
    installed = [Path(path) for path in sys.path if "site-packages" in path]
    if account.uid == os.geteuid():
        return os.pathsep.join(map(str, (checkout, *installed)))
    root = Path(tempfile.mkdtemp(prefix="dbosflow-packages-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    root.chmod(0o755)
    for room in ("dbosflow", "migrations"):
        if (checkout / room).is_dir():
            shutil.copytree(checkout / room, root / "checkout" / room)
    for number, path in enumerate(installed):
        shutil.copytree(path, root / str(number), copy_function=_link_or_copy, ignore_dangling_symlinks=True)
    return os.pathsep.join(map(str, (root / "checkout", *(root / str(number) for number in range(len(installed))))))


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


@cache
def _interpreter(account: Account) -> str:
    """A Python like ours that the account can run; ours may be in root's home."""
    if account.uid == os.geteuid():
        return sys.executable
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/local/bin/python{version}", f"/usr/bin/python{version}"):
        with suppress(OSError, subprocess.CalledProcessError):
            command = [candidate, "-c", "import ctypes, fcntl"]
            subprocess.run(command, check=True, user=account.uid, group=account.gid, extra_groups=[], cwd="/")
            return candidate
    pytest.skip(f"user {account.name} can run no Python {version}")


class User:
    """A process that has joined a server, or is about to."""

    def __init__(self, account: Account, script: str, data_dir: Path, **environment: str) -> None:
        """``script`` joins, and obeys."""
        self.process = account.python(_PREAMBLE + script, str(data_dir), **environment)
        self._url: str | None = None

    @property
    def url(self) -> str:
        """The server's address; waits until the user has joined."""
        if self._url is None:
            self._url = str(self.receive())
        return self._url

    def query(self, statement: str) -> object:
        """What the server answers to this user: the first column of the first row, if there is any."""
        assert self.url
        assert self.process.stdin
        print(statement, file=self.process.stdin, flush=True)
        rows = self.receive()
        return rows[0][0] if isinstance(rows, list) else None

    def receive(self) -> object:
        """The next message from the user."""
        assert self.process.stdout
        with killed_after(LONGEST_SILENCE, self.process):
            line = self.process.stdout.readline()
        if not line:
            pytest.fail(f"the user ended, or said nothing for {LONGEST_SILENCE:g} s: {self.process.communicate()[1]}")
        return json.loads(line)

    def kill(self) -> None:
        """End without a chance to do anything about it."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)

    def leave(self) -> None:
        """End in an orderly way."""
        _, errors = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, errors

    def close(self) -> None:
        """End at any price."""
        if self.process.poll() is None:
            self.kill()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream and not stream.closed:
                stream.close()


@dataclass
class Home:
    """A directory that ``account`` owns, a data directory to be made in it, and the processes around that."""

    account: Account
    path: Path
    users: list[User] = field(default_factory=list)

    @property
    def data_dir(self) -> Path:
        """What users name."""
        return self.path / "data"

    @property
    def root(self) -> Path:
        """Where the server's files are."""
        return self.data_dir / (self.data_dir / "location").read_text().strip()

    def user(self, script: str = JOIN, **environment: str) -> User:
        """A new process that runs ``script`` with the data directory."""
        user = User(self.account, script, self.data_dir, **environment)
        self.users.append(user)
        return user

    @property
    def keepers(self) -> list[int]:
        """The process ids of the keepers."""
        return self._processes("keeper.py")

    @property
    def servers(self) -> list[int]:
        """The process ids of the servers, without their children."""
        return self._processes("/postgres")

    @property
    def initdbs(self) -> list[int]:
        """The process ids of those that make a cluster."""
        return self._processes("/initdb")

    def expect_nobody(self) -> None:
        """Claim that keeper and server end, and leave neither a socket nor a pid file."""
        eventually(lambda: not self._processes(""), timeout=PATIENCE)
        assert not [*self.path.rglob(".s.PGSQL.*"), *self.path.rglob("postmaster.pid")]

    def close(self) -> None:
        """End what is left, and remove the directory."""
        for user in self.users:
            user.close()
        try:
            eventually(lambda: not self._processes(""), timeout=PATIENCE)
        finally:
            for pid in self._processes(""):
                os.kill(pid, signal.SIGKILL)
            shutil.rmtree(self.path)

    def _processes(self, program: str) -> list[int]:
        found = []
        for entry in Path("/proc").glob("[1-9]*"):
            with suppress(FileNotFoundError, ProcessLookupError):
                words = (entry / "cmdline").read_text(errors="replace").split("\0")
                # Users name the directory as well.
                if str(self.path) in "".join(words) and not any(_PREAMBLE in word for word in words):
                    found += [int(entry.name) for word in words[:4] if word.endswith(program)][:1]
        return found


@contextmanager
def joined(data_dir: Path, *, bin_dir: Path | None = None) -> Iterator[EmbeddedServer]:
    """This process as a user."""
    server = EmbeddedServer.join(data_dir, bin_dir=bin_dir)
    try:
        yield server
    finally:
        server.leave()


def query(url: str, statement: str) -> object:
    """What the server answers to this process: the first column of the first row, if there is any."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None
