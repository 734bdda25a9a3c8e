"""libfaketime: processes whose wall clock is what a file says, and jumps when that is written anew.

The monotonic clock stays the machine's. The library comes from Debian: root installs it by the way.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, SupportsIndex

if TYPE_CHECKING:
    from collections.abc import Mapping

MISSING = "there is no libfaketime here: install it (Debian: apt-get install faketime), or run this as root"

_FILE = "FAKETIME_TIMESTAMP_FILE"
_LIBRARIES = ("usr/lib/*/faketime/libfaketimeMT.so.1", "usr/lib*/faketime/libfaketimeMT.so.1")


def find_library() -> Path | None:
    """The library; installs it where we may."""
    if _find() is None and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "install", "-y", "-q", "faketime"], env=environment, check=False)
    return _find()


def _find() -> Path | None:
    return next((path for pattern in _LIBRARIES for path in sorted(Path("/").glob(pattern))), None)


def environment(library: Path, clock: Path) -> Mapping[str, str]:
    """The variables of a process whose wall clock the file ``clock`` sets."""
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_CACHE_DURATION": "1",
        "NO_FAKE_STAT": "1",
        _FILE: str(clock),
    }


def set_clock(clock: Path, ahead: float) -> None:
    """Has the processes of this clock be so many seconds ahead, within a second."""
    new = clock.with_suffix(".new")
    new.write_text(f"{ahead:+.1f}")
    new.rename(clock)


def clean_up_after(pid: int) -> None:
    """Removes what a process that was killed has left in shared memory, if its clock was faked."""
    for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
        (Path("/dev/shm") / name).unlink(missing_ok=True)


def mend_sleep() -> None:
    """Makes ``time.sleep`` work in a process whose clock is faked.

    Python sleeps until an absolute monotonic time, which libfaketime 0.9.10 reckons as if it had faked that clock, too.
    """
    if _FILE in os.environ:
        time.sleep = _sleep


def _sleep(seconds: float | SupportsIndex, /) -> None:
    threading.Event().wait(float(seconds))
