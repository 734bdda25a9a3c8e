"""The runners of this process, of whichever engine."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sized

runners_here: weakref.WeakSet[Sized] = weakref.WeakSet()
"""A runner is as large as the number of its runs."""
os.register_at_fork(after_in_child=runners_here.clear)


def some_run_here() -> bool:
    """Whether any engine of this process runs a workflow now."""
    return any(len(runner) for runner in tuple(runners_here))
