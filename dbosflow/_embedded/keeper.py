"""The keeper: the process that owns the embedded Postgres, and stops it when its last user has left.

Users hold ``users.lock`` shared. The keeper asks for it alone, and sleeps until the kernel gives it, which is when the
last user has left or died, by whatever signal. While it holds it, newcomers wait; when it ends, they start another.

```text
              keeper.lock taken              cluster.lock taken            users.lock taken
(no keeper) ───────────────────▶ claiming ───────────────────▶ serving ───────────────────▶ stopping ──▶ (no keeper)
     ▲                           old socket                    Postgres     no user left    fast, then
     │                           removed                       started,                     immediate
     │                                                         restarted
     └──── killed: the kernel tells Postgres to shut down, whose processes hold cluster.lock until they end;
           the next keeper waits for it

a user:  users.lock shared ──▶ answers? ──▶ joined ──▶ lock released, or dead
                                  │ no                      (the keeper may only stop now)
                                  └▶ start.lock ──▶ keeper.lock free? start a keeper ──▶ wait until it answers
```

It runs as a file of its own and imports nothing of this package: it starts in a few milliseconds, stays small, and does
not care what happens to the installation it came from.
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

# Users try the lock for an instant to see whether it is taken; only another keeper holds it for longer.
_CLAIM_PATIENCE = 2.0
# How long Postgres may take to end after each signal: fast shutdown, immediate shutdown, and no mercy.
_STOP_PATIENCE = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
# A server that ends by itself is started again, unless it ends so soon, so often in a row.
_SHORT_LIFE = 5.0
_SHORT_LIVES = 3
_PAUSE = 0.005

_HALF_MADE = "half-made-"

# Postgres gets none of the caller's environment: no secrets, and no PG* or LC_* variable that would change it.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)

_logger = logging.getLogger("dbosflow.embedded")


@dataclass(frozen=True)
class Plan:
    """What a keeper is told: files, commands, and the account that Postgres runs as (none: the keeper's own)."""

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
        """The command line of its keeper, which reads the plan from its input."""
        # Isolated and without site-packages: nothing but the standard library, from nowhere else. The cluster's path
        # is for people who read ``ps``.
        return [sys.executable, "-I", "-S", __file__, self.cluster]

    def to_json(self) -> str:
        """As the keeper reads it."""
        return json.dumps(asdict(self))


class Keeper:
    """Runs Postgres until nobody uses it."""

    def __init__(self, plan: Plan) -> None:
        """Nothing happens before ``claim``."""
        self._plan = plan
        self._cluster = Path(plan.cluster)
        self._pid_file = self._cluster / "postmaster.pid"
        self._keeper_lock = _open_lock(plan.keeper_lock)
        self._users_lock = _open_lock(plan.users_lock)
        self._server: subprocess.Popen[bytes] | None = None
        self._unused = False
        self._changing_server = threading.Lock()

    def claim(self) -> bool:
        """Become the one keeper, if there is none."""
        if not _locked_within(_CLAIM_PATIENCE, self._keeper_lock):
            return False
        # Users connect when they find the keeper's lock taken: that must not be to the server of one that was killed.
        Path(self._plan.socket).unlink(missing_ok=True)
        return True

    def run(self) -> int:
        """Serve until nobody uses it, and clean up; the exit code."""
        code = 0
        try:
            self._initialise()
            self._serve()
        except Exception:
            _logger.exception("the keeper gives up")
            code = EXIT_FAILED
        # After a failure somebody may still want to read the log.
        if code == 0 or _locked_within(0, self._users_lock):
            for path in map(Path, self._plan.discard):
                if self._is_here() or not path.is_relative_to(self._cluster.parent):
                    _remove(path)
        # Before the process ends, and with it the users' lock: who gets that one must find this one free.
        os.close(self._keeper_lock)
        return code

    def _is_here(self) -> bool:
        """Whether the server's directory is the one that it was: not removed, and perhaps made anew for another one."""
        try:
            return os.path.samestat(os.fstat(self._keeper_lock), Path(self._plan.keeper_lock).stat())
        except FileNotFoundError:
            return False

    def _initialise(self) -> None:
        if self._cluster.exists():
            return
        # Under another name until it is complete and on the disk: what has the cluster's name is a cluster.
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
                # Postgres would take any process that has the number by now, even a dead one that nobody has waited
                # for, for the one that wrote it.
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
        """The lock that all processes of Postgres share: once it is ours, the cluster is nobody's.

        What is started with it keeps it to the end of its last child, even when keeper and postmaster are killed.
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
            # Safe beside our one other thread, which waits in the kernel and holds no lock of C or Python.
            preexec_fn=partial(_follow_to_death, os.getpid()) if sys.platform == "linux" else None,  # noqa: PLW1509
        )


def _follow_to_death(keeper: int) -> None:
    """Have the kernel shut this process down when the keeper is gone, even killed. Runs between fork and exec."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
    if os.getppid() != keeper:
        os._exit(EXIT_FAILED)


def _open_lock(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _locked_within(patience: float, lock: int) -> bool:
    """Whether the lock could be taken, alone, within ``patience`` seconds."""
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
    """Whether process ``pid`` is a Postgres that serves ``cluster``; where there is no /proc, whether it exists."""
    try:
        os.kill(pid, 0)
        if sys.platform != "linux":
            return True
        return Path(f"/proc/{pid}/cwd").samefile(cluster)
    except PermissionError:
        # Root in a container may not look, but the command line is open to all.
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
    """Whoever stops a whole service stops its users too, and they may need the server to the end of their work."""
    _logger.info("the users decide when the server stops, not %s", signal.Signals(number).name)


def main() -> int:
    """Claim the keeper's lock, leave the caller's family, and run; the lock outlives the fork."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s [%(process)d] keeper: %(message)s")
    keeper = Keeper(Plan(**json.load(sys.stdin)))
    if not keeper.claim():
        return EXIT_ALREADY_KEPT
    if os.fork():
        # An exit code at once for the user who waits for it, and no child of its own to look after.
        os._exit(0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _carry_on)
    return keeper.run()


if __name__ == "__main__":
    sys.exit(main())
