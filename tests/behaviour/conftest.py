"""What tests of public behaviour need: engines, programs, a ledger."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from dbosflow import Engine, workflow, write_stream_async
from tests.behaviour import ledger
from tests.behaviour.gate import Gate
from tests.behaviour.program import Program
from tests.behaviour.worker_pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LEASE = 2.0


class StartProgram(Protocol):
    """How a test starts a program."""

    def __call__(self, name: str, **options: Any) -> Program: ...


@pytest.fixture(autouse=True)
def _ledger_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger of the test's own."""
    monkeypatch.setenv(ledger.VARIABLE, str(tmp_path / "ledger"))


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An open engine in this process, hosted on a thread."""
    with Engine(database_url, lease=LEASE) as engine:
        yield engine


@pytest.fixture
def client(database_url: str) -> Iterator[Engine]:
    """An open engine that runs nothing."""
    with Engine(database_url, executes=False) as engine:
        yield engine


@pytest.fixture
def start_program(database_url: str, tmp_path: Path) -> Iterator[StartProgram]:
    """Starts programs on the test's database, and waits until they are ready; none outlives the test."""
    with ExitStack() as programs:
        count = 0

        def start(name: str, **options: Any) -> Program:
            nonlocal count
            count += 1
            log = tmp_path / f"{name}-{count}.log"
            program = programs.enter_context(Program(name, log, **({"url": database_url} | options)))
            assert program.receive() == {"ready": True}
            return program

        yield start


class StartPool(Protocol):
    """How a test starts a pool of workers."""

    def __call__(self, module: str, *, size: int = 2, **settings: Any) -> WorkerPool: ...


@pytest.fixture
def start_pool(database_url: str, start_program: StartProgram) -> Iterator[StartPool]:
    """Pools of workers on the test's database."""
    with ExitStack() as pools:

        def start_pool(module: str, *, size: int = 2, **settings: Any) -> WorkerPool:
            return pools.enter_context(WorkerPool(database_url, start_program, module, size=size, **settings))

        yield start_pool


@pytest.fixture
def gate() -> Gate:
    """For workflows that write when they are let."""
    return Gate()


@pytest.fixture
def gated(gate: Gate) -> Any:
    """A workflow that writes a number to key ``k`` whenever it is let."""

    async def writing_when_let(count: int) -> None:
        for number in range(count):
            await gate.passed()
            await write_stream_async("k", number)

    return workflow(writing_when_let)
