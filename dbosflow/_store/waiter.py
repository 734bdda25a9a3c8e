"""The table ``waiter``: what suspended workflows wait for, besides a time."""

from __future__ import annotations

from typing import NamedTuple

from dbosflow._store.notify import stream_topic, workflow_topic


class Target(NamedTuple):
    """What a workflow waits for: the end of a workflow, or, with a ``key``, a frame of that stream."""

    workflow_id: str
    key: str | None = None
    offset: int = 0
    """The first offset that the reader has not seen."""
    committed: bool = False
    """Whether only frames that can no longer be rolled back count."""

    def topics(self, waiting: str) -> tuple[str, ...]:
        """The topics of the hints that there may be news, for the workflow ``waiting``: its own end wakes nobody."""
        if self.key is None:
            return (workflow_topic(self.workflow_id),)
        news = stream_topic(self.workflow_id, self.key)
        return (news,) if self.workflow_id == waiting else (news, workflow_topic(self.workflow_id))
