"""From a place to a server that answers.

Until the server answers, the same questions are asked again: does it answer? If not, and no other user is starting it,
is there a keeper? If not, a keeper is started. All questions are about the present state, and never about what should
have happened before. So it does not matter which process was killed at which moment.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

import psycopg

from dbosflow._embedded.account import server_account
from dbosflow._embedded.binaries import find_binaries
from dbosflow._embedded.cluster import (
    create_database,
    has_database,
    initdb_command,
    postgres_command,
    read_state,
    write_access_rules,
)
from dbosflow._embedded.keeper import EXIT_ALREADY_KEPT, Plan
from dbosflow._embedded.locks import FileLock, is_taken
from dbosflow._embedded.sockets import socket_directory, socket_file
from dbosflow.errors import ConfigurationError, DatabaseUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

    from dbosflow._embedded.cluster import State
    from dbosflow._embedded.deadline import Deadline
    from dbosflow._embedded.place import Place

_LOG_SIZE = 16 * 1024 * 1024
"""Bytes. A larger log is renamed when the server starts; one old log is kept."""
_TAIL_SIZE = 2000
"""Characters of the log in an error message: some twenty lines, of which the last ones say why a server ended."""


class Startup:
    """One user's wait for the server in ``place``, which is started if no other user does so.

    ``bin_dir`` names the only binaries to use. An ``ephemeral`` server removes its files when it stops.
    """

    def __init__(self, place: Place, deadline: Deadline, *, bin_dir: Path | None, ephemeral: bool) -> None:
        """Does nothing yet; ``wait`` begins."""
        self._place = place
        self._deadline = deadline
        self._bin_dir = bin_dir
        self._ephemeral = ephemeral
        self._launched = False
        self._log_start = 0

    def wait(self) -> State:
        """The state of the server, once it answers. It stays up as long as the caller holds ``users.lock``.

        Raises ``ConfigurationError`` or ``DatabaseUnavailableError`` if it cannot be started.
        """
        turn = FileLock(self._place.start_lock)
        try:
            while True:
                state, complete = self._look()
                if state and complete:
                    return state
                if turn.held or turn.try_acquire():
                    self._act(state)
                self._deadline.pause()
        finally:
            turn.release()

    def _look(self) -> tuple[State | None, bool]:
        """The state of a server that answers, and whether our database exists on it."""
        # Without its keeper the server is about to stop, although it may still answer.
        if not is_taken(self._place.keeper_lock):
            return None, False
        state = read_state(self._place)
        if state is None or not state.ready:
            return None, False
        try:
            return state, has_database(state, self._deadline.remaining)
        except psycopg.OperationalError:
            return None, False

    def _act(self, state: State | None) -> None:
        if state:
            # If the server stops now, the next look will show that.
            with suppress(psycopg.OperationalError):
                create_database(state, self._deadline.remaining)
        elif not is_taken(self._place.keeper_lock):
            if self._launched:
                self._fail("could not be started")
            self._launch()
            self._launched = True

    def _launch(self) -> None:
        plan = self._plan()
        with _open_log(self._place.log) as log:
            self._log_start = os.fstat(log.fileno()).st_size
            keeper = subprocess.Popen(  # noqa: S603  our own file, without a shell
                plan.command(),
                stdin=subprocess.PIPE,
                text=True,
                stdout=log,
                stderr=log,
                cwd="/",
                # Out of reach of the terminal's Ctrl-C, and of signals to this process's group.
                start_new_session=True,
            )
            # This returns soon: the process is the keeper's first half, which forks as soon as it holds its lock.
            keeper.communicate(plan.to_json())
        code = keeper.returncode
        if code not in {0, EXIT_ALREADY_KEPT}:
            self._fail(f"could not be started, its keeper ended with {code}")

    def _plan(self) -> Plan:
        place = self._place
        account = server_account(place.cluster)
        if not account.reaches(place.root):
            message = f"user {account.name}, whom the server runs as, cannot enter {place.root}: move it or let them in"
            raise ConfigurationError(message)
        installation = find_binaries(account, place.cluster, self._bin_dir, self._deadline)
        sockets = socket_directory(place, account)
        write_access_rules(place)
        discard = [str(sockets), str(place.socket)] if place.socket.is_symlink() else []
        if self._ephemeral:
            discard += [str(place.root), str(place.named)]
        return Plan(
            cluster=str(place.cluster),
            socket=str(socket_file(sockets)),
            users_lock=str(place.users_lock),
            keeper_lock=str(place.keeper_lock),
            cluster_lock=str(place.cluster_lock),
            initdb=initdb_command(installation, durable=not self._ephemeral),
            postgres=postgres_command(installation, place, sockets),
            uid=account.uid if account.foreign else None,
            gid=account.gid if account.foreign else None,
            discard=discard,
        )

    def _fail(self, what: str) -> None:
        message = f"the embedded server in {self._place.root} {what}{tail(self._place, self._log_start)}"
        raise DatabaseUnavailableError(message)


def tail(place: Place, start: int = 0) -> str:
    """The end of the server's log, from ``start`` on, for an error message."""
    try:
        text = place.log.read_bytes()[start:].decode(errors="replace").strip()
    except FileNotFoundError:
        text = ""
    return f"; its log ends with:\n{text[-_TAIL_SIZE:]}" if text else ""


def _open_log(path: Path) -> BinaryIO:
    if path.exists() and path.stat().st_size > _LOG_SIZE:
        path.replace(path.with_suffix(".log.1"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "ab")
