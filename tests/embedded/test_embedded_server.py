"""The embedded server is there while it has a user, and its data for longer, whichever process is killed, and when."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from contextlib import suppress

import pytest

from dbosflow._embedded import EmbeddedServer
from dbosflow.errors import ConfigurationError
from tests.embedded.processes import EPHEMERAL, PATIENCE, Home
from tests.support import eventually

FORK = """
server = EmbeddedServer.join(Path(sys.argv[1]))
child = os.fork()
if child:
    say(child)
    obey(server)
else:
    server.leave()
    os.read(os.pipe()[0], 1)
"""
FORK_THAT_ENDS = """
server = EmbeddedServer.join(Path(sys.argv[1]))
child = os.fork()
if not child:
    server.leave()
    sys.exit()
os.waitpid(child, 0)
obey(server)
"""
SUBPROCESS = """
server = EmbeddedServer.join(Path(sys.argv[1]))
say(subprocess.Popen([sys.executable, "-c", "import os; os.read(os.pipe()[0], 1)"], close_fds=False).pid)
obey(server)
"""
FORK_IN_EPHEMERAL = """
with EmbeddedServer.ephemeral() as server:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        obey(server)
"""


class TestSharing:
    """Users that name the same directory get the same server, and the same data."""

    def test_two_processes_share_one_server(self, home: Home) -> None:
        """The second finds the first one's server, and the server outlives the first."""
        first, second = home.user(), home.user()
        assert first.url == second.url
        assert len(home.servers) == len(home.keepers) == 1
        first.query("CREATE TABLE said AS SELECT 'hello' AS word")
        first.leave()
        assert second.query("SELECT word FROM said") == "hello"
        second.leave()
        home.expect_nobody()

    def test_the_data_is_there_the_next_time(self, empty_home: Home) -> None:
        """The server stops after its last user, and the next one finds what was written."""
        user = empty_home.user()
        user.query("CREATE TABLE said AS SELECT 'hello' AS word")
        user.leave()
        empty_home.expect_nobody()
        assert empty_home.user().query("SELECT word FROM said") == "hello"

    def test_eight_at_once_in_an_empty_directory_start_one_server(self, empty_home: Home) -> None:
        """Nobody else initialises or starts anything."""
        users = [empty_home.user() for _ in range(8)]
        assert len({user.url for user in users}) == 1
        assert len({user.query("SELECT pg_postmaster_start_time()::text") for user in users}) == 1
        assert empty_home.root.parent == empty_home.data_dir
        assert len(empty_home.servers) == len(empty_home.keepers) == 1

    def test_each_membership_of_a_process_counts(self, home: Home) -> None:
        """A process that joined twice is a user until it has left twice; leaving one of them again changes nothing."""
        user = home.user("""
first, second = (EmbeddedServer.join(Path(sys.argv[1])) for _ in range(2))
first.leave()
first.leave()
obey(second)
second.leave()
say("left")
sys.stdin.read()
os.read(os.pipe()[0], 1)
""")
        assert user.query("SELECT 1") == 1
        assert user.process.stdin
        user.process.stdin.close()
        assert user.receive() == "left"
        home.expect_nobody()
        assert user.process.poll() is None

    def test_who_joins_while_it_stops_gets_the_next_one(self, home: Home) -> None:
        """A joiner may come at any moment of the stop."""
        user = home.user("""
for _ in range(10):
    server = EmbeddedServer.join(Path(sys.argv[1]))
    with psycopg.connect(server.url) as connection:
        connection.execute("SELECT 1")
    server.leave()
say("done")
""")
        assert user.receive() == "done"
        home.expect_nobody()


class TestEnds:
    """However users, keepers and servers end, what remains is right."""

    def test_a_killed_user_leaves_the_server_to_the_other(self, home: Home) -> None:
        """SIGKILL of one user is like its leaving."""
        first, second = home.user(), home.user()
        assert first.url == second.url
        first.kill()
        assert second.query("SELECT 1") == 1
        second.leave()
        home.expect_nobody()

    def test_the_server_stops_when_its_only_user_is_killed(self, home: Home) -> None:
        """Nobody is there to ask for it."""
        user = home.user()
        assert user.url
        user.kill()
        home.expect_nobody()

    def test_a_killed_keeper_takes_its_server_along_and_the_next_user_starts_both(self, home: Home) -> None:
        """A server without a keeper would never stop; committed data survives, and old users can go on."""
        user = home.user()
        user.query("CREATE TABLE said AS SELECT 'hello' AS word")
        (keeper,) = home.keepers
        os.kill(keeper, signal.SIGKILL)
        newcomer = home.user()
        assert newcomer.query("SELECT word FROM said") == "hello"
        assert user.query("SELECT word FROM said") == "hello"
        assert len(home.servers) == len(home.keepers) == 1
        assert home.keepers != [keeper]

    def test_a_killed_keeper_leaves_no_server_behind(self, home: Home) -> None:
        """Even when nobody ever joins again."""
        assert home.user().url
        (keeper,) = home.keepers
        os.kill(keeper, signal.SIGKILL)
        home.expect_nobody()

    def test_nobody_joins_the_server_of_a_killed_keeper(self, home: Home) -> None:
        """It may look ready until it notices the death: a new keeper lets nobody in, and waits for its end."""
        user = home.user()
        assert user.url
        (keeper,), (server,) = home.keepers, home.servers
        os.kill(server, signal.SIGSTOP)
        os.kill(keeper, signal.SIGKILL)
        newcomer = home.user()
        eventually(lambda: home.keepers not in ([], [keeper]), timeout=PATIENCE)
        eventually(lambda: not list(home.path.rglob(".s.PGSQL.5432")), timeout=PATIENCE)
        os.kill(server, signal.SIGCONT)
        assert newcomer.query("SELECT 1") == 1
        assert home.servers != [server]

    def test_a_killed_server_is_started_again(self, home: Home) -> None:
        """Users reconnect to the same address."""
        user = home.user()
        user.query("CREATE TABLE said AS SELECT 'hello' AS word")
        (server,) = home.servers
        os.kill(server, signal.SIGKILL)
        eventually(lambda: home.servers not in ([], [server]), timeout=PATIENCE)
        newcomer = home.user()
        assert newcomer.query("SELECT word FROM said") == "hello"
        assert user.query("SELECT word FROM said") == "hello"
        assert len(home.keepers) == 1

    def test_signals_to_a_whole_service_do_not_take_the_server_from_its_users(self, home: Home) -> None:
        """The keeper is out of the terminal's reach, and leaves it to the users when to stop."""
        user = home.user()
        assert user.url
        (keeper,) = home.keepers
        assert os.getsid(keeper) != os.getsid(user.process.pid)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(keeper, number)
        assert user.query("SELECT 1") == 1
        assert home.keepers == [keeper]

    @pytest.mark.parametrize("victim", ["user", "keeper", "initdb"])
    def test_a_start_that_was_interrupted_is_made_good_by_the_next_user(self, empty_home: Home, victim: str) -> None:
        """Whichever process is killed while the cluster is made: no half of one is used, nor left behind."""
        user = empty_home.user()
        eventually(lambda: list(empty_home.path.glob("data/server/half-made-*/PG_VERSION")), timeout=PATIENCE)
        if victim == "user":
            user.kill()
        else:
            # A child that initdb has forked goes under the same name until it has become another program.
            for pid in empty_home.keepers if victim == "keeper" else empty_home.initdbs:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        assert empty_home.user().query("SELECT 1") == 1
        assert not list(empty_home.root.glob("half-made-*"))
        assert len(empty_home.servers) == len(empty_home.keepers) == 1

    def test_a_stale_pid_file_does_not_prevent_a_start(self, home: Home) -> None:
        """Not even one whose number another process of the same account has by now, as in a restarted container."""
        bystander = home.account.python("import sys; sys.stdin.read()")
        pid_file = home.root / "data" / "postmaster.pid"
        pid_file.write_text(f"{bystander.pid}\n{home.root / 'data'}\n1\n5432\n/tmp\n\n  1 2\nready   \n")
        assert home.user().query("SELECT 1") == 1
        bystander.communicate()

    def test_a_directory_that_is_removed_and_made_anew_has_a_server_of_its_own(self, home: Home) -> None:
        """Though the one before still ends: neither takes the other's socket or data away."""
        user = home.user()
        user.query("SELECT 1")
        (old,) = home.servers
        os.kill(old, signal.SIGSTOP)  # it takes its time to end
        user.leave()
        shutil.rmtree(home.data_dir)
        user = home.user()
        user.query("CREATE TABLE news AS SELECT 'new' AS word")
        os.kill(old, signal.SIGCONT)
        eventually(lambda: old not in home.servers)
        assert home.user().query("SELECT word FROM news") == "new"
        assert user.query("SELECT word FROM news") == "new"

    def test_one_whose_socket_is_elsewhere_is_made_anew_as_well(self, home: Home) -> None:
        """Since its path is too long: the keeper of the one before leaves the link to the new socket alone."""
        far = Home(home.account, home.path / ("x" * 120))
        far.path.mkdir(0o755)
        os.chown(far.path, home.account.uid, home.account.gid)
        home.data_dir.rename(far.data_dir)
        try:
            user = far.user(TMPDIR=str(home.path))
            user.query("SELECT 1")
            (old,), (keeper,) = far.servers, far.keepers
            os.kill(old, signal.SIGSTOP)  # it takes its time to end
            user.leave()
            shutil.rmtree(far.data_dir)
            user = far.user(TMPDIR=str(home.path))
            user.query("CREATE TABLE news AS SELECT 'new' AS word")
            link = far.root / "socket"
            assert link.is_symlink()
            os.kill(old, signal.SIGCONT)
            eventually(lambda: keeper not in far.keepers)
            assert link.is_symlink()
            assert far.user(TMPDIR=str(home.path)).query("SELECT word FROM news") == "new"
        finally:
            far.close()

    def test_the_keeper_of_a_removed_directory_leaves_the_new_one_alone(self, home: Home) -> None:
        """Also if its own server ends while it has users: it starts none on files that are not its own."""
        user = home.user()
        user.query("SELECT 1")
        (old,), (keeper,) = home.servers, home.keepers
        shutil.rmtree(home.data_dir)
        new = home.user()
        new.query("CREATE TABLE news AS SELECT 'new' AS word")
        os.kill(old, signal.SIGKILL)
        eventually(lambda: keeper not in home.keepers)
        assert new.query("SELECT word FROM news") == "new"
        assert home.user().query("SELECT word FROM news") == "new"
        user.kill()

    def test_the_next_server_waits_for_the_last_process_of_the_old_one(self, home: Home) -> None:
        """When keeper and postmaster are killed at once, its other processes may still have the data in their hands."""
        user = home.user()
        assert user.url
        (keeper,), (server,) = home.keepers, home.servers
        checkpointer = user.query("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
        assert isinstance(checkpointer, int)
        os.kill(checkpointer, signal.SIGSTOP)
        os.kill(keeper, signal.SIGKILL)
        os.kill(server, signal.SIGKILL)
        newcomer = home.user()
        log = home.root / "server.log"
        eventually(lambda: "waiting for the processes of an earlier server" in log.read_text(), timeout=PATIENCE)
        assert not home.servers
        os.kill(checkpointer, signal.SIGCONT)
        assert newcomer.query("SELECT 1") == 1


class TestChildren:
    """To be a user is not inherited."""

    @pytest.mark.parametrize("script", [FORK, SUBPROCESS])
    def test_a_child_does_not_keep_the_server(self, home: Home, script: str) -> None:
        """The server stops when its user is killed, though a forked child or a subprocess of it runs on."""
        user = home.user(script)
        child = user.receive()
        assert isinstance(child, int)
        assert user.query("SELECT 1") == 1
        user.kill()
        home.expect_nobody()
        os.kill(child, signal.SIGKILL)

    def test_a_child_does_not_take_the_server_away(self, home: Home) -> None:
        """A forked child that leaves, and ends, has done nothing to its parent."""
        user = home.user(FORK_THAT_ENDS)
        assert user.query("SELECT 1") == 1
        (keeper,) = home.keepers
        other = home.user()
        assert other.query("SELECT 1") == 1
        other.leave()
        assert user.query("SELECT 1") == 1
        assert home.keepers == [keeper]


class TestEphemeral:
    """A server in a temporary directory takes the directory along."""

    def test_it_is_gone_when_the_block_ends(self, empty_home: Home) -> None:
        """Server, keeper and files, before the next statement runs."""
        user = empty_home.user(EPHEMERAL, TMPDIR=str(empty_home.path))
        assert user.query("SELECT 1") == 1
        assert list(empty_home.path.iterdir())
        user.leave()
        assert not list(empty_home.path.iterdir())
        assert not empty_home.servers

    def test_it_is_gone_when_its_owner_is_killed(self, empty_home: Home) -> None:
        """The keeper cleans up."""
        user = empty_home.user(EPHEMERAL, TMPDIR=str(empty_home.path))
        assert user.query("SELECT 1") == 1
        user.kill()
        empty_home.expect_nobody()
        assert not list(empty_home.path.iterdir())

    def test_it_is_gone_when_its_keeper_was_killed(self, empty_home: Home) -> None:
        """The owner cleans up."""
        user = empty_home.user(EPHEMERAL, TMPDIR=str(empty_home.path))
        assert user.query("SELECT 1") == 1
        (keeper,) = empty_home.keepers
        os.kill(keeper, signal.SIGKILL)
        user.leave()
        assert not list(empty_home.path.iterdir())
        assert not empty_home.servers

    def test_it_outlives_a_forked_child_that_leaves_the_block(self, empty_home: Home) -> None:
        """The block is its parent's."""
        user = empty_home.user(FORK_IN_EPHEMERAL, TMPDIR=str(empty_home.path))
        assert user.query("SELECT 1") == 1
        user.leave()
        assert not list(empty_home.path.iterdir())

    def test_nothing_remains_of_one_that_could_not_start(
        self, empty_home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The temporary directory goes with the error."""
        monkeypatch.setattr(tempfile, "tempdir", str(empty_home.path))
        with pytest.raises(ConfigurationError), EmbeddedServer.ephemeral(bin_dir=empty_home.path / "nothing"):
            pass
        assert not list(empty_home.path.iterdir())
