"""Test tools for authors of workflows: crashes, a movable clock, and an engine for each test.

- ``assert_crash_safe`` runs a workflow with a crash at each of its durable operations, and compares the results.
- ``crash_at`` crashes an engine at one named place.
- ``run_stream`` runs a workflow or an endpoint, over HTTP or not, and returns what it has streamed.
- ``dbosflow.testing.fixtures`` has pytest fixtures: ``pytest_plugins = ["dbosflow.testing.fixtures"]``.
"""

from dbosflow.testing.clock import MovableClock
from dbosflow.testing.crashes import Crash, crash_at
from dbosflow.testing.points import END, START
from dbosflow.testing.server import fresh_database, shared_server
from dbosflow.testing.streams import Frame, RequestFailedError, StreamRun, run_stream, run_stream_async
from dbosflow.testing.sweep import CrashReport, assert_crash_safe, assert_crash_safe_async

__all__ = [
    "END",
    "START",
    "Crash",
    "CrashReport",
    "Frame",
    "MovableClock",
    "RequestFailedError",
    "StreamRun",
    "assert_crash_safe",
    "assert_crash_safe_async",
    "crash_at",
    "fresh_database",
    "run_stream",
    "run_stream_async",
    "shared_server",
]
