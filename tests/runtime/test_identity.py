"""Which process a worker belongs to, and whether it is gone: a pid by itself says neither."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dbosflow._runtime.process import identity
from dbosflow._runtime.process.identity import has_vanished, is_local, this_process
from tests.support import eventually

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system says nothing of processes")


def test_this_process_is_local_and_alive() -> None:
    """What every worker registers."""
    own = this_process()
    assert own.pid == os.getpid()
    assert is_local(own)
    assert not has_vanished(own)


def test_a_pid_that_was_given_to_another_process_is_not_that_process() -> None:
    """The start time tells them apart."""
    earlier = replace(this_process(), process_started_at="1")
    assert is_local(earlier)
    assert has_vanished(earlier)


def test_a_process_of_another_boot_or_namespace_is_not_local() -> None:
    """Its pid means something else here, or nothing: only its lease says."""
    own = this_process()
    assert not is_local(replace(own, boot_id="another"))
    assert not is_local(replace(own, pid_namespace="pid:[1]"))
    assert not is_local(replace(own, boot_id=None))
    assert not is_local(replace(own, process_started_at=None))
    assert is_local(replace(own, host="renamed meanwhile"))


def test_a_process_that_ended_has_vanished_also_as_a_zombie() -> None:
    """Its parent may never ask for its exit status."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        running = replace(this_process(), pid=process.pid, process_started_at=identity._started_at(process.pid))
        assert running.process_started_at is not None
        assert not has_vanished(running)
        process.kill()
        eventually(lambda: has_vanished(running))
        assert Path(f"/proc/{process.pid}").exists(), "it was meant to be a zombie"
    finally:
        process.kill()
        process.communicate()
    assert has_vanished(running)


def test_a_command_named_like_its_own_status_is_read_right(tmp_path: Path) -> None:
    """The name stands in parentheses, and may hold some, and spaces."""
    program = tmp_path / "a) Z 1 (b"
    program.symlink_to(sys.executable)
    with subprocess.Popen(
        [program, "-c", "input()"], stdin=subprocess.PIPE, env={**os.environ, "PYTHONHOME": sys.base_prefix}
    ) as process:
        assert process.stdin is not None
        started = identity._started_at(process.pid)
        assert started is not None
        assert started.isdigit()
        process.stdin.close()


def test_a_forked_child_is_a_process_of_its_own() -> None:
    """It does not go by its parent's identity."""
    code = (
        "import os; from dbosflow._runtime.process.identity import this_process\n"
        "own = this_process().pid\n"
        "child = os.fork()\n"
        "if child == 0: os._exit(this_process().pid == own)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0


def test_where_the_system_names_no_process_only_the_lease_tells_that_one_is_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No ``/proc``: not local, so never taken for vanished."""
    monkeypatch.setattr(identity, "_read", lambda path: None)
    identity._identity.cache_clear()
    try:
        assert not is_local(this_process())
    finally:
        identity._identity.cache_clear()
