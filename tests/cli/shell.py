"""A shell to try the command line in: real processes, in a directory of their own, none of which outlives the test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import dbosflow
from dbosflow.config import DATABASE_URL_VARIABLE
from tests.support import eventually, killed_after

PATIENCE = 60.0

_MARK = "DBOSFLOW_TEST_SHELL"

# The second would make Python flush where we should.
_NOT_INHERITED = {DATABASE_URL_VARIABLE, "PYTHONUNBUFFERED"}


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    status: int
    out: str
    err: str


class Command:
    """A command that runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    @property
    def out(self) -> IO[str]:
        """Its stdout."""
        assert self.process.stdout
        return self.process.stdout

    def await_log(self, text: str) -> str:
        """The next line of its stderr with ``text`` in it; fails if it ends without one."""
        assert self.process.stderr
        read = []
        with killed_after(PATIENCE, self.process):
            for line in self.process.stderr:
                read.append(line)
                if text in line:
                    return line
        message = f"it ended, or was killed after {PATIENCE:g} s, without saying {text!r}:\n{''.join(read)}"
        raise AssertionError(message)

    def await_line(self, text: str) -> str:
        """The next line of its stdout with ``text`` in it; fails if it ends without one."""
        read = []
        with killed_after(PATIENCE, self.process):
            for line in self.out:
                read.append(line)
                if text in line:
                    return line
        said = f"{''.join(read)}\n{self.end().err}"
        message = f"it ended, or was killed after {PATIENCE:g} s, without printing {text!r}:\n{said}"
        raise AssertionError(message)

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        self.process.send_signal(number)

    def end(self) -> Done:
        """Its end, with what nobody has read before. Its stdin is closed."""
        out, err = self.process.communicate(timeout=PATIENCE)
        return Done(self.process.returncode, out or "", err or "")


@dataclass
class Shell:
    """Where commands run."""

    directory: Path
    environment: dict[str, str] = field(default_factory=dict)
    _started: list[subprocess.Popen[Any]] = field(default_factory=list)
    _mark: str = field(default_factory=lambda: uuid4().hex)

    def use(self, url: str) -> None:
        """Names the database for all commands from now on."""
        self.environment[DATABASE_URL_VARIABLE] = url

    def write(self, name: str, text: str) -> Path:
        """A file in the directory."""
        path = self.directory / name
        path.write_text(text, "utf-8")
        return path

    def run(self, *arguments: str) -> Done:
        """Runs ``dbosflow`` to its end."""
        return self.start(*arguments).end()

    def start(self, *arguments: str) -> Command:
        """Starts ``dbosflow``."""
        return self.python("-m", "dbosflow", *arguments)

    def python(self, *arguments: str) -> Command:
        """Starts Python."""
        return self.program(sys.executable, *arguments)

    def program(self, *command: str) -> Command:
        """Starts anything."""
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.directory,
            env=self._environment(),
        )
        self._started.append(process)
        return Command(process)

    def processes(self) -> list[int]:
        """The processes that descend from this shell's commands, however far; not those of Postgres."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):  # ended meanwhile, or another user's
                if f"{_MARK}={self._mark}".encode() in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        return found

    def close(self) -> None:
        """Ends what was started; fails if anything is left of what that has started."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
                if process.stderr:
                    print(process.args, process.stderr.read(), sep="\n")  # pytest shows it if the test has failed
            process.wait(PATIENCE)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    with suppress(BrokenPipeError):
                        stream.close()
        try:
            eventually(lambda: not self.processes())
        finally:
            for pid in self.processes():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _environment(self) -> dict[str, str]:
        home = str(Path(dbosflow.__file__).parents[1])
        python_path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
        kept = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
        return kept | {"PYTHONPATH": python_path, _MARK: self._mark} | self.environment
