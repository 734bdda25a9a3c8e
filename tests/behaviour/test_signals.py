"""A signal whose handler raises, in a program whose main thread has the engine's loop: its end is no workflow's."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.behaviour.tables import rows

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 60.0

TERMINATED = """
import asyncio, os, signal, sys, threading
from dbosflow import Engine, workflow

begun = threading.Event()

@workflow
async def on_loop():
    begun.set()
    await asyncio.Event().wait()

@workflow
def on_thread():
    begun.set()
    threading.Event().wait()

def interrupt():
    begun.wait()
    loop.call_soon_threadsafe(os.kill, os.getpid(), signal.SIGTERM)  # not in a task

async def main():
    async with Engine(sys.argv[1], grace=3600) as engine:
        await engine.start_async(globals()[sys.argv[2]].options(workflow_id="w"))
        threading.Thread(target=interrupt, daemon=True).start()
        await asyncio.Event().wait()

def exit(number, frame):
    raise SystemExit(128 + number)

def new_loop():
    global loop
    loop = asyncio.new_event_loop()
    return loop

signal.signal(signal.SIGTERM, exit)
with asyncio.Runner(loop_factory=new_loop) as runner:
    runner.run(main())
"""


@pytest.mark.parametrize("flow", ["on_loop", "on_thread"])
def test_a_loop_that_a_signal_ends_ends_no_workflow(database_url: str, tmp_path: Path, flow: str) -> None:
    """``asyncio.run`` then cancels all tasks at once. The engine waits for no step any more, and gives up its lease."""
    program = tmp_path / "program.py"
    program.write_text(TERMINATED)
    command = [sys.executable, str(program), database_url, flow]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode == 143, ended.stderr
    assert "failed" not in ended.stderr
    assert "in time" not in ended.stderr
    assert rows(database_url, "SELECT status, worker_id FROM dbosflow.workflow") == [("queued", None)]
    assert rows(database_url, "SELECT ended_because FROM dbosflow.worker") == [("released",)]
