"""Wake-ups inside one process: topics, and who wants to hear of them.

A wake-up is a hint to read something anew. It comes from this process's own commits, from NOTIFY, or, for all topics,
from the safety poll, a reconnect of the LISTEN connection, or the death of a worker anywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbosflow._store.notify import DEATH_TOPIC

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Signals:
    """Topics and their subscribers. Used on the loop's thread only."""

    def __init__(self) -> None:
        self._subscribers: dict[str, list[Callable[[], None]]] = {}

    def subscribe(self, topic: str, tell: Callable[[], None]) -> Callable[[], None]:
        """Calls ``tell`` at each wake-up of ``topic``; gives what ends that."""
        self._subscribers.setdefault(topic, []).append(tell)

        def unsubscribe() -> None:
            subscribers = self._subscribers.get(topic, [])
            if tell in subscribers:
                subscribers.remove(tell)
            if not subscribers:
                self._subscribers.pop(topic, None)

        return unsubscribe

    def wake(self, topics: Iterable[str]) -> None:
        """Tells the subscribers of these topics."""
        for topic in topics:
            if topic == DEATH_TOPIC:
                self.wake_all()
            for tell in tuple(self._subscribers.get(topic, ())):
                tell()

    def wake_all(self) -> None:
        """Tells every subscriber: hints may have been lost."""
        self.wake(tuple(self._subscribers))
