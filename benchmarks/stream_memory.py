"""A long stream, written and read with flat memory: ``python benchmarks/stream_memory.py [--values N --bytes N]``.

A writer process and a reader process, on an ephemeral server; each reports its peak memory before the stream and after.
Linux only: the kernel's own count (VmHWM), since ``getrusage`` would also count the process that started this one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

from dbosflow import Engine, workflow, write_stream_async


@workflow
async def pouring(values: int, size: int) -> None:
    """Writes ``values`` texts of ``size`` bytes."""
    text = "x" * size
    for number in range(values):
        await write_stream_async("poured", f"{number} {text}")


def peak() -> float:
    """The most memory that this process has had, in MB."""
    status = Path("/proc/self/status").read_text("ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024


async def write(url: str, values: int, size: int) -> None:
    """The writer's process."""
    async with Engine(url) as engine:
        await engine.run_async(pouring, 10, size)
        before, began = peak(), time.monotonic()
        await engine.run_async(pouring.options(workflow_id="poured"), values, size)
        print(json.dumps({"before": before, "after": peak(), "seconds": time.monotonic() - began}))


async def read(url: str, values: int) -> None:
    """The reader's process: it comes first, and reads all of it live."""
    async with Engine(url, executes=False) as engine:
        count, before, began = 0, peak(), time.monotonic()
        async for item in engine.read_stream_async("poured", "poured", wait_for=60):
            assert item.closed or item.value.startswith(f"{count} ")
            count += not item.closed
        assert count == values, count
        print(json.dumps({"before": before, "after": peak(), "seconds": time.monotonic() - began}))


def main() -> None:
    """Runs both, and prints what they say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--values", type=int, default=43_000)
    parser.add_argument("--bytes", type=int, default=8192)
    parser.add_argument("--role", choices=["write", "read"])
    parser.add_argument("--url")
    args = parser.parse_args()
    if args.role == "write":
        asyncio.run(write(args.url, args.values, args.bytes))
    elif args.role == "read":
        asyncio.run(read(args.url, args.values))
    else:
        with Engine.ephemeral(executes=False) as engine:
            common = [sys.executable, __file__, "--url", engine.database_url]
            common += ["--values", str(args.values), "--bytes", str(args.bytes)]
            roles = {
                role: subprocess.Popen([*common, "--role", role], stdout=subprocess.PIPE, text=True)  # noqa: S603
                for role in ("read", "write")
            }
            print(f"{args.values} values, {args.values * args.bytes / 2**20:.0f} MB")
            for role, process in roles.items():
                found = json.loads(process.communicate()[0])
                print(
                    f"{role}: {found['seconds']:.1f} s; peak {found['before']:.0f} MB before, {found['after']:.0f} after"
                )


if __name__ == "__main__":
    main()
