"""A primary and its streaming standby, which take turns: the standby is promoted, the old primary becomes its copy."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString
from urllib.parse import quote

import psycopg

from dbosflow._embedded.account import own_account
from tests.chaos.nodes.postgres import PATIENCE, Postgres
from tests.chaos.nodes.reaper import Reaper
from tests.support import eventually

if TYPE_CHECKING:
    from typing import Self

STANDBY = "standby"
"""What the standby calls itself to its primary."""

_IN_STEP: LiteralString = """
    SELECT state = 'streaming' AND (sync_state = 'sync') = %s AND flush_lsn >= pg_current_wal_lsn()
    FROM pg_stat_replication WHERE application_name = 'standby'"""


class Node(Postgres):
    """One server of the two."""

    def copy(self, primary: Postgres) -> None:
        """Begins anew as a standby of ``primary``, with a copy of what that one holds now."""
        shutil.rmtree(self.data, ignore_errors=True)
        self.make_directories()
        place = {"host": str(primary.socket.parent), "port": primary.socket.suffix[1:], "user": "dbosflow"}
        options = ["--checkpoint=fast", "--no-sync", "--wal-method=stream"]
        copy = ["-h", place["host"], "-p", place["port"], "-U", place["user"], "-D", str(self.data), *options]
        own_account().run([self.client_program("pg_basebackup"), *copy])
        self.give_away_data()
        conninfo = " ".join(f"{name}={value}" for name, value in place.items())
        settings = {
            "primary_conninfo": f"{conninfo} application_name={STANDBY}",
            "wal_retrieve_retry_interval": "100ms",
        }
        self.write("postgresql.auto.conf", "".join(f"{name} = '{value}'\n" for name, value in settings.items()))
        self.write("standby.signal", "")

    def promote(self) -> None:
        """Ends its being a standby; returns when it can be written."""
        self.ask("SELECT pg_promote(true, %s)", int(PATIENCE))

    def require_standby(self, name: str) -> None:
        """From now on a commit waits for the standby ``name``; none, if that is empty.

        Sessions are told by the checkpointer. It has the signal once a new session has the setting; the first of two
        checkpoints may begin before it reads the setting, the second one does not.
        """
        self.ask(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
        self.ask("SELECT pg_reload_conf()")
        eventually(lambda: self.ask("SHOW synchronous_standby_names") == [(name,)], timeout=PATIENCE)
        for _ in range(2):
            self.ask("CHECKPOINT")

    def ask(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What this server says, whether or not it is the primary."""
        with psycopg.connect(self.url("looking"), autocommit=True, connect_timeout=2) as connection:
            cursor = connection.execute(query.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def freeze(self) -> None:
        """SIGSTOP to all of its processes: it neither answers nor closes a connection, as if the network were cut."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Has them all go on."""
        self._signal_all(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL to all of its processes."""
        self._signal_all(signal.SIGKILL)
        self.forget()

    def end(self) -> None:
        """Ends it, whatever state it is in."""
        if self.running:
            self.kill()

    def _signal_all(self, number: signal.Signals) -> None:
        children = _children(self.pid)  # of one that is gone nobody knows them
        os.kill(self.pid, number)  # first: it would take the end of a child for a crash
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def _children(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


class Pair:
    """Two servers, of which one is the primary. Reached by a URL that names both."""

    def __init__(self, *, synchronous: bool = True) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="dbosflow-chaos-"))
        self.root.chmod(0o755)
        self.nodes = (Node(self.root / "one"), Node(self.root / "two"))
        self.primary, self.standby = self.nodes
        self._synchronous = synchronous
        self._reaper: Reaper | None = None

    def url(self, name: str) -> str:
        """Their address for a program that writes, whichever is the primary."""
        hosts = ",".join(quote(str(node.socket.parent), safe="") for node in self.nodes)
        ports = ",".join(node.socket.suffix[1:] for node in self.nodes)
        place = f"host={hosts}&port={ports}&target_session_attrs=read-write"
        return f"postgresql://dbosflow@/postgres?{place}&application_name={name}"

    def start(self) -> None:
        """Starts the primary; returns when it answers."""
        self.primary.start()

    def stop(self, how: str) -> None:
        """Stops the primary."""
        self.primary.stop(how)

    def crash_backend(self, pid: int) -> None:
        """Kills one of the primary's processes; returns when it answers."""
        self.primary.crash_backend(pid)

    def promote(self) -> None:
        """Makes the standby the primary. What was the primary is no more, or is out of reach."""
        self.standby.promote()
        self.primary, self.standby = self.standby, self.primary

    def join(self) -> None:
        """Makes what is no primary any more the standby; returns when both are in step."""
        self.standby.copy(self.primary)
        self.standby.start()
        if self._synchronous:
            self.primary.require_standby(STANDBY)
        eventually(self.in_step, timeout=PATIENCE)

    def in_step(self) -> bool:
        """Whether the standby has all that the primary shows."""
        return self.primary.ask(_IN_STEP.replace("%s", str(self._synchronous))) == [(True,)]

    def discard(self) -> None:
        """Removes all that they left."""
        shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self) -> Self:
        self._reaper = Reaper(self.root)
        try:
            self.primary.make()
            self.start()
            self.join()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        for node in self.nodes:
            node.end()
        if self._reaper is not None:
            self._reaper.close()
