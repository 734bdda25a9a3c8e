"""What every engine has, also one that runs nothing: its repositories, and the services that share its pool.

```text
hints      wakeups ◄─ listener, safety poll · notifier · waker
reads      hub, outcomes
writes     enqueuer, deduplicator · messages, inputs, used units · trimmer
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbosflow._runtime.engine.user_transactions import UserTransactions
from dbosflow._runtime.process.session import Session
from dbosflow._runtime.queues.deduplicator import Deduplicator
from dbosflow._runtime.queues.enqueuer import Enqueuer
from dbosflow._runtime.queues.units_writer import UnitsWriter
from dbosflow._runtime.repository import Repository
from dbosflow._runtime.streams.hub import Hub, Outcomes
from dbosflow._runtime.streams.inbox_trimmer import InboxTrimmer
from dbosflow._runtime.streams.input_writer import InputWriter
from dbosflow._runtime.streams.message_writer import MessageWriter
from dbosflow._runtime.wakeups.listener import Listener, SafetyPoll
from dbosflow._runtime.wakeups.notifier import Notifier
from dbosflow._runtime.wakeups.topics import Wakeups
from dbosflow._runtime.wakeups.waker import Waker
from dbosflow._sessions import READER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AsyncExitStack

    from psycopg_pool import AsyncConnectionPool

    from dbosflow._runtime.process.service import Service
    from dbosflow._runtime.streams.statistics import StreamStatistics
    from dbosflow.config import Settings


class Services:
    """The services of a client. They live as long as the engine is open.

    Args:
        url: Where those connect that have a session of their own.
        settings: The engine's.
        pool: For everything else, and for those while they cannot connect.
        statistics: Where readers are counted.
        is_own_hint: Whether a hint comes from a backend of this engine, which has woken its own waiters.
    """

    def __init__(
        self,
        url: str,
        settings: Settings,
        pool: AsyncConnectionPool[Any],
        statistics: StreamStatistics,
        is_own_hint: Callable[[int], bool],
    ) -> None:
        self.repository = Repository(pool, settings)
        self.patient_repository = Repository(pool, settings, patient=True)
        self.wakeups = Wakeups()
        self.notifier = Notifier(url, settings, pool)
        self._read_session = Session(url, settings, READER, pool)
        self.hub = Hub(self._read_session, settings.schema, self.wakeups, statistics)
        self.outcomes = Outcomes(self._read_session, settings.schema, self.wakeups)
        self.enqueuer = Enqueuer(url, settings, pool, announce=self.announce, on_enqueued=self.outcomes.enqueued)
        self.deduplicator = Deduplicator(pool, settings, self.announce)
        self.waker = Waker(pool, url, settings, self.wakeups, self.announce)
        self.input_writer = InputWriter(pool, settings, self.announce)
        self.message_writer = MessageWriter(pool, settings, self.announce)
        self.trimmer = InboxTrimmer(pool, settings.schema)
        self.units_writer = UnitsWriter(pool, settings.schema, self.announce)
        self.transactions = UserTransactions(pool, settings, self.repository, self.wakeups, self.announce)
        listener = Listener(url, settings, self.wakeups, is_own_hint)
        self._in_order: tuple[Service, ...] = (
            *(self.notifier, listener, self.hub, self.outcomes, self.enqueuer, self.deduplicator, self.waker),
            *(self.input_writer, self.message_writer, self.trimmer, self.units_writer),
            *self.transactions.services,
            SafetyPoll(settings, self.wakeups, listener),
        )

    def open(self, resources: AsyncExitStack) -> None:
        """Begins; ``resources`` closes them, the last one first."""
        resources.push_async_callback(self._read_session.close)
        for service in self._in_order:
            service.open()
            resources.push_async_callback(service.close)

    def announce(self, topics: Iterable[str], *, at_once: bool = True, notified: bool = False) -> None:
        """Wakes the waiters of these topics: here directly, elsewhere by NOTIFY, unless they are ``notified`` already.

        NOTIFY goes first, unless ``at_once`` is false because there are waiters here.
        """
        topics = list(topics)
        if not notified:
            self.notifier.send(topics, at_once=at_once)
        self.wakeups.wake(topics)
        self.waker.news(topics)
