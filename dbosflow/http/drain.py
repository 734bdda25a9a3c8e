"""How an application asks its clients to leave: before a server stops."""

from __future__ import annotations


class Drain:
    """Whether the application drains."""

    def __init__(self) -> None:
        self.has_begun = False

    def begin(self) -> None:
        """Ends the answers that go on."""
        self.has_begun = True
