"""Wake-ups inside one process: topics, and their subscribers.

A wake-up is a hint to read something again. Its sources are this process's own commits, NOTIFY, and, for all topics,
the safety poll, a reconnect of the LISTEN connection, or the death of any worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbosflow._store.notify import DEATH_TOPIC, SEPARATOR, part_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Wakeups:
    """Topics and their subscribers. Used on the loop's thread only."""

    def __init__(self) -> None:
        self._subscribers: dict[str, list[Callable[[], None]]] = {}
        self._of_partitions: dict[str, list[Callable[[str], None]]] = {}
        self._parts: dict[str, dict[str, None]] = {}
        self.on_wanted: Callable[[], None] = lambda: None
        """Called when a part of the topics gets its first subscriber."""
        self.on_death: Callable[[], None] = lambda: None
        """Called when a worker has died, besides all subscribers."""

    def subscribe(self, topic: str, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls ``callback`` at each wake-up of ``topic``; the returned function ends that."""
        subscribers = self._subscribers.get(topic)
        if subscribers is None:
            subscribers = self._subscribers[topic] = []
            self._want(topic)
        subscribers.append(callback)

        def unsubscribe() -> None:
            if callback in subscribers:
                subscribers.remove(callback)
            if not subscribers and self._subscribers.get(topic) is subscribers:
                del self._subscribers[topic]
                self._leave(topic)

        return unsubscribe

    def subscribe_partitions(self, topic: str, callback: Callable[[str], None]) -> Callable[[], None]:
        """Calls ``callback`` with the key at each wake-up of a partition of a queue; its ``topic`` is subscribed."""
        subscribers = self._of_partitions.setdefault(topic, [])
        subscribers.append(callback)

        def unsubscribe() -> None:
            if callback in subscribers:
                subscribers.remove(callback)
            if not subscribers and self._of_partitions.get(topic) is subscribers:
                del self._of_partitions[topic]

        return unsubscribe

    @property
    def parts(self) -> frozenset[str]:
        """The parts of the topics that have subscribers: see ``notify.part_of``."""
        return frozenset(self._parts)

    def wake(self, topics: Iterable[str]) -> None:
        """Calls the subscribers of these topics; a death concerns all subscribers."""
        for topic in topics:
            if topic == DEATH_TOPIC:
                self.wake_all()
                self.on_death()
                return
            for callback in tuple(self._subscribers.get(topic, ())):
                callback()
            if self._of_partitions and topic[0] == "q":
                queue, separator, key = topic.partition(SEPARATOR)
                if separator:
                    for told in tuple(self._of_partitions.get(queue, ())):
                        told(key)

    def wake_part(self, part: str) -> None:
        """Calls the subscribers of all topics in this part."""
        self.wake(tuple(self._parts.get(part, ())))

    def wake_all(self) -> None:
        """Calls all subscribers."""
        for subscribers in tuple(self._subscribers.values()):
            for callback in tuple(subscribers):
                callback()

    def _want(self, topic: str) -> None:
        part = part_of(topic)
        topics = self._parts.get(part)
        if topics is None:
            self._parts[part] = {topic: None}
            self.on_wanted()
        else:
            topics[topic] = None

    def _leave(self, topic: str) -> None:
        part = part_of(topic)
        topics = self._parts[part]
        del topics[topic]
        if not topics:
            del self._parts[part]
