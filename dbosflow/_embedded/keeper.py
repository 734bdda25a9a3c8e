"""The keeper: the process that owns the embedded Postgres, and stops it when its last user has left.

Users hold ``users.lock`` shared. The keeper requests it exclusively, and sleeps until the kernel grants it: when the
last user has left or died, by whatever signal. While the keeper holds the lock, new users wait; when the keeper ends,
they start another one.

```text
              keeper.lock taken              cluster.lock taken            users.lock taken
(no keeper) ───────────────────▶ claiming ───────────────────▶ serving ───────────────────▶ stopping ──▶ (no keeper)
     ▲                           old socket                    Postgres     no user left    fast, then
     │                           removed                       started,                     immediate
     │                                                         restarted
     └──── killed: the kernel makes Postgres shut down, whose processes hold cluster.lock until they end;
           the next keeper waits for that

a user:  users.lock shared ──▶ answers? ──▶ joined ──▶ lock released, or user dead
                                  │ no                      (the keeper may only stop now)
                                  └▶ start.lock ──▶ keeper.lock free? start a keeper ──▶ wait until it answers
```

The keeper runs as a script of its own and imports nothing from this package. So it starts in a few milliseconds, stays
small, and does not depend on what happens to the installation that it came from.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

EXIT_FAILED = 1
EXIT_ALREADY_KEPT = 3

_CLAIM_PATIENCE = 2.0
"""Seconds. Users take the lock for an instant to test whether it is free; only another keeper holds it for longer."""
# Seconds that Postgres may take to end after each signal: fast shutdown, immediate shutdown, kill.
_STOP_PATIENCE = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
_SHORT_LIFE = 5.0
"""Seconds. A server that ends by itself is restarted, unless it has ended this early ``_SHORT_LIVES`` times in a row:
then its configuration or its files are wrong, and another start would find the same."""
_SHORT_LIVES = 3
_PAUSE = 0.005
"""Seconds between two tries to take a lock that users hold for an instant."""

_HALF_MADE = "half-made-"

# Postgres gets nothing of the caller's environment: no secrets, and no PG* or LC_* variable that would change it.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)

_logger = logging.getLogger("dbosflow.embedded")


@dataclass(frozen=True)
class Plan:
    """A keeper's instructions: files, commands, and the account that Postgres runs as (none: the keeper's own)."""

    cluster: str
    socket: str
    users_lock: str
    keeper_lock: str
    cluster_lock: str
    initdb: list[str]
    postgres: list[str]
    uid: int | None
    gid: int | None
    discard: list[str]

    def command(self) -> list[str]:
        """The command line of the keeper, which reads the plan from its standard input."""
        # Isolated and without site-packages: only the standard library is needed. The cluster's path is for people who
        # read the output of ``ps``.
        return [sys.executable, "-I", "-S", __file__, self.cluster]

    def to_json(self) -> str:
        """The plan as the keeper reads it."""
        return json.dumps(asdict(self))


class Keeper:
    """Runs Postgres as long as it has users."""

    def __init__(self, plan: Plan) -> None:
        """Does nothing yet; ``claim`` begins."""
        self._plan = plan
        self._cluster = Path(plan.cluster)
        self._pid_file = self._cluster / "postmaster.pid"
        self._keeper_lock = _open_lock(plan.keeper_lock)
        self._users_lock = _open_lock(plan.users_lock)
        self._server: subprocess.Popen[bytes] | None = None
        self._unused = False
        self._changing_server = threading.Lock()

    def claim(self) -> bool:
        """Becomes the only keeper, unless there is one; returns whether it has."""
        if not _locked_within(_CLAIM_PATIENCE, self._keeper_lock):
            return False
        # When users find the keeper's lock taken, they connect. They must not reach the server of a killed keeper.
        Path(self._plan.socket).unlink(missing_ok=True)
        return True

    def run(self) -> int:
        """Serves as long as there are users, and cleans up; returns the exit code."""
        code = 0
        try:
            self._initialise()
            self._serve()
        except Exception:
            _logger.exception("the keeper gives up")
            code = EXIT_FAILED
        # After a failure a user may still want to read the log.
        if code == 0 or _locked_within(0, self._users_lock):
            for path in map(Path, self._plan.discard):
                if self._is_here() or not path.is_relative_to(self._cluster.parent):
                    _remove(path)
        # Before the process ends and releases the users' lock: the user that gets that one must find this one free.
        os.close(self._keeper_lock)
        return code

    def _is_here(self) -> bool:
        """Whether the server's directory is still the original one: not removed, or made anew for another server."""
        try:
            return os.path.samestat(os.fstat(self._keeper_lock), Path(self._plan.keeper_lock).stat())
        except FileNotFoundError:
            return False

    def _initialise(self) -> None:
        if self._cluster.exists():
            return
        # Under another name until it is complete and on disk: a directory with the cluster's name is always complete.
        with self._cluster_locked() as lock:
            for leftover in self._cluster.parent.glob(f"{_HALF_MADE}*"):
                shutil.rmtree(leftover)
            half_made = Path(tempfile.mkdtemp(prefix=_HALF_MADE, dir=self._cluster.parent))
            if self._plan.uid is not None and self._plan.gid is not None:
                os.chown(half_made, self._plan.uid, self._plan.gid)
            code = self._spawn([*self._plan.initdb, "-D", str(half_made)], lock).wait()
            if code:
                message = f"initdb failed with {code}"
                raise RuntimeError(message)
            half_made.rename(self._cluster)
        _sync_directory(self._cluster.parent)

    def _serve(self) -> None:
        threading.Thread(target=self._stop_when_unused, daemon=True).start()
        short_lives = 0
        while server := self._start():
            started_at = time.monotonic()
            code = server.wait()
            if self._unused:
                return
            _logger.warning("Postgres ended with %d while it was in use", code)
            short_lives = short_lives + 1 if time.monotonic() - started_at < _SHORT_LIFE else 0
            if short_lives == _SHORT_LIVES:
                message = "Postgres does not stay up"
                raise RuntimeError(message)

    def _start(self) -> subprocess.Popen[bytes] | None:
        with self._changing_server:
            if self._unused:
                return None
            if not self._is_here():
                message = f"{self._cluster.parent} was removed"
                raise RuntimeError(message)
            with self._cluster_locked() as lock:
                pid = _pid_in(self._pid_file)
                if pid and _serves(pid, self._cluster):
                    message = f"process {pid}, not started by dbosflow, serves {self._cluster}"
                    raise RuntimeError(message)
                # Another process may have this number by now, or it is a zombie. Postgres would take that process for
                # the one that wrote the files.
                for stale in (self._pid_file, Path(f"{self._plan.socket}.lock")):
                    stale.unlink(missing_ok=True)
                self._server = self._spawn(self._plan.postgres, lock)
            return self._server

    def _stop_when_unused(self) -> None:
        fcntl.flock(self._users_lock, fcntl.LOCK_EX)
        with self._changing_server:
            self._unused = True
            server = self._server
        if server is None:
            return
        for number, patience in _STOP_PATIENCE:
            server.send_signal(number)
            try:
                server.wait(patience)
            except subprocess.TimeoutExpired:
                _logger.warning("Postgres has not ended %g s after %s", patience, number.name)
            else:
                return

    @contextmanager
    def _cluster_locked(self) -> Iterator[int]:
        """The lock that all processes of Postgres share. Once we hold it, no process uses the cluster.

        Processes started with it hold it until their last child ends, even if keeper and postmaster are killed.
        """
        lock = _open_lock(self._plan.cluster_lock)
        try:
            if not _locked_within(0, lock):
                self._end_earlier_server(lock)
            yield lock
        finally:
            os.close(lock)

    def _end_earlier_server(self, lock: int) -> None:
        _logger.warning("waiting for the processes of an earlier server")
        for number, patience in _STOP_PATIENCE:
            pid = _pid_in(self._pid_file)
            if pid and _serves(pid, self._cluster):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            if _locked_within(patience, lock):
                return
        message = "the processes of an earlier server do not end"
        raise RuntimeError(message)

    def _spawn(self, command: list[str], lock: int) -> subprocess.Popen[bytes]:
        foreign = self._plan.uid is not None
        return subprocess.Popen(  # noqa: S603  a command of the plan, without a shell
            command,
            stdin=subprocess.DEVNULL,
            cwd="/",
            env=ENVIRONMENT,
            pass_fds=[lock],
            user=self._plan.uid,
            group=self._plan.gid,
            extra_groups=[] if foreign else None,
            # Safe beside our only other thread, which waits in the kernel and holds no lock of C or Python.
            preexec_fn=partial(_follow_to_death, os.getpid()) if sys.platform == "linux" else None,  # noqa: PLW1509
        )


def _follow_to_death(keeper: int) -> None:
    """Makes the kernel shut this process down when the keeper ends, even if killed. Runs between fork and exec."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
    if os.getppid() != keeper:
        os._exit(EXIT_FAILED)


def _open_lock(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _locked_within(patience: float, lock: int) -> bool:
    """Takes the lock exclusively within ``patience`` seconds; returns whether that worked."""
    give_up_at = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= give_up_at:
                return False
            time.sleep(_PAUSE)
        else:
            return True


def _pid_in(pid_file: Path) -> int | None:
    try:
        return int(pid_file.read_text().partition("\n")[0])
    except (FileNotFoundError, ValueError):
        return None


def _serves(pid: int, cluster: Path) -> bool:
    """Whether process ``pid`` is a Postgres that serves ``cluster``; without /proc, whether the process exists."""
    try:
        os.kill(pid, 0)
        if sys.platform != "linux":
            return True
        return Path(f"/proc/{pid}/cwd").samefile(cluster)
    except PermissionError:
        # Root in a container may not follow the link, but every user may read the command line.
        return os.fsencode(cluster) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _carry_on(number: int, _frame: FrameType | None) -> None:
    """Ignores signals to a whole service: its users get them, too, and may need the server until they are done."""
    _logger.info("the users decide when the server stops, not %s", signal.Signals(number).name)


def main() -> int:
    """Claims the keeper's lock, leaves the caller's process group, and runs; the lock outlives the fork."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s [%(process)d] keeper: %(message)s")
    keeper = Keeper(Plan(**json.load(sys.stdin)))
    if not keeper.claim():
        return EXIT_ALREADY_KEPT
    if os.fork():
        # The waiting user gets an exit code at once, and has no child process to look after.
        os._exit(0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _carry_on)
    return keeper.run()


if __name__ == "__main__":
    sys.exit(main())
