"""What runs on the event loop just now: written by every strand, read by the watchdog's thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dbosflow._runtime.branch import Strand


class Watch:
    """The strand whose code the loop is running, if any."""

    __slots__ = ("running",)

    def __init__(self) -> None:
        self.running: Strand | None = None
