"""How the watchdog looks at the event loop's thread."""

from __future__ import annotations

import gc
import sys
import threading

import pytest

from dbosflow._runtime.execution import watchdog


@pytest.mark.parametrize("collects", [True, False])
def test_no_garbage_is_collected_while_it_looks(monkeypatch: pytest.MonkeyPatch, collects: bool) -> None:  # noqa: FBT001
    """In CPython 3.11 the process would stop for ever if a thread began meanwhile; and gc is as it was before."""
    during: list[bool] = []
    frames = sys._current_frames

    def looked() -> object:
        during.append(gc.isenabled())
        return frames()

    monkeypatch.setattr(sys, "_current_frames", looked)
    was = gc.isenabled()
    (gc.enable if collects else gc.disable)()
    try:
        assert watchdog._innermost(threading.get_ident())
        assert (during, gc.isenabled()) == ([False], collects)
    finally:
        (gc.enable if was else gc.disable)()
