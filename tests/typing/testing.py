"""What the type checker says of the testing kit. Nothing here runs: mypy checks it with everything else."""

from __future__ import annotations

from typing import assert_type

from dbosflow import Engine, workflow
from dbosflow.testing import Crash, CrashReport, assert_crash_safe, assert_crash_safe_async, crash_at


@workflow
def sync_flow(x: int, *, unit: str = "m") -> str:
    """A sync workflow."""
    return f"{x} {unit}"


@workflow
async def async_flow(x: int) -> int:
    """An async workflow."""
    return x


def blocking(engine: Engine) -> None:
    """The arguments are checked, unless an engine goes along with them."""
    assert_type(assert_crash_safe(sync_flow, 1, unit="km"), CrashReport)
    assert_type(assert_crash_safe(async_flow, 1), CrashReport)
    assert_type(assert_crash_safe(sync_flow.options(priority=1), 1), CrashReport)
    assert_type(assert_crash_safe(sync_flow, 1, engine=engine), CrashReport)
    assert_type(assert_crash_safe(sync_flow, 1, expects=ValueError), CrashReport)
    assert_type(assert_crash_safe(sync_flow, 1, engine=engine, expects=(KeyError, OSError)), CrashReport)
    assert_crash_safe(sync_flow, 1, expects="no class")  # type: ignore[call-arg]
    assert_crash_safe(sync_flow, "not an int")  # type: ignore[call-overload]
    assert_crash_safe(sync_flow)  # type: ignore[call-overload]
    assert_crash_safe(sync_flow, 1, engine="no engine")  # type: ignore[call-arg]
    with crash_at(engine, "w", "step#0", when="after") as crash:
        assert_type(crash, Crash)
        assert_type(crash.happened, bool)
    crash_at(engine, "w", "step#0", when="during")  # type: ignore[arg-type]


async def awaitable(engine: Engine) -> None:
    """So they are here."""
    assert_type(await assert_crash_safe_async(async_flow, 1), CrashReport)
    assert_type(await assert_crash_safe_async(async_flow, 1, engine=engine), CrashReport)
    await assert_crash_safe_async(async_flow, "not an int")  # type: ignore[call-overload]
