"""A pool of daemon threads whose limit counts *running* threads only: a thread that waits gives up its place.

A sync workflow owns a thread from its beginning to its end, even while it waits for another workflow. If waiting
threads counted, as many parents as there are threads would leave none for the children that they wait for. So a waiting
thread is *away*: other calls run in its place, and it takes a place again before its code goes on.

```text
queued ──► running ──► returned
            │    ▲
            ▼    │ before anything that is queued
           away ─┘
```

Threads that are away have a limit of their own. A free place goes first to threads that come back, then to calls that
are wanted (a child's, or one that a thread is away for), then to all others. For these, threads that are away count as
running beyond the number that leaves room for more. So work without a waiter cannot fill the limit, at which waits
would be refused; and where the limit is small, some sleeping threads do not keep all others from running.

A step may wait for a workflow that needs a thread of the same pool: meanwhile it lends its place (``Place``).
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, OrderedDict, deque
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from dbosflow._runtime.process.threads import complete
from dbosflow.errors import ThreadLimitError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from dbosflow.config import Settings

T = TypeVar("T")

_Call = tuple[Future[Any], "Callable[[], Any]"]

_ROOM_FOR_WANTED = 4
"""One in so many threads that may be away is kept for calls that are wanted."""

logger = logging.getLogger("dbosflow.threads")


class ThreadPool(Executor):
    """Up to ``limit`` daemon threads that run, made when there is work, and up to ``waiting_limit`` that are away.

    Daemons, because the standard library's pool joins its threads when the interpreter exits: there, one call that
    never returns would keep its process alive for ever; here, a worker that has drained ends.
    """

    def __init__(self, limit: int, name: str, *, waiting_limit: int = 0) -> None:
        self._limit = limit
        self._waiting_limit = waiting_limit
        self._room = max(waiting_limit - max(waiting_limit // _ROOM_FOR_WANTED, limit) - 1, 1)
        """How many may be away without counting as running for unwanted calls, so that each of these can go away."""
        self._name = name
        self._lock = threading.Lock()
        self._closed = False
        self._free = limit
        """Places for running threads; below zero while some have come back without waiting for one."""
        self._away = 0
        self._awaited: Counter[Hashable] = Counter()
        """The calls that threads are away for."""
        self._returning: deque[threading.Lock] = deque()
        self._wanted: OrderedDict[Hashable, _Call] = OrderedDict()
        self._others: OrderedDict[Hashable, _Call] = OrderedDict()
        self._made = 0
        self._idle = 0
        self._ready: SimpleQueue[_Call | None] = SimpleQueue()
        """For new and idle threads: the next call, or ``None`` to end."""
        self._serving = threading.local()

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Calls the function on one of the threads."""
        return self.begin(object(), partial(function, *args, **kwargs), wanted=False)

    def begin(self, key: Hashable, call: Callable[[], T], *, wanted: bool) -> Future[T]:
        """Makes the call on one of the threads; first if it is ``wanted``, or if a thread is away for ``key``.

        The future gets a ``ThreadLimitError`` if the system starts no thread for it and no running one could take it.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                msg = "these threads take no more work"
                raise RuntimeError(msg)
            queue = self._wanted if wanted or key in self._awaited else self._others
            queue[key if key not in queue else object()] = (future, call)
            self._fill()
        return future

    @contextmanager
    def away(self, what: str, *, awaits: Hashable = None, at_the_limit: str) -> Iterator[None]:
        """The calling thread, which runs ``what``, only waits during the block: for the call ``awaits``, if given.

        An error of the block goes on at once; else the thread takes a place before it leaves the block. A thread of
        another pool has no place to give up.

        Raises:
            ThreadLimitError: as many are away as may be, and ``at_the_limit`` is ``"raise"``. With ``"stay"`` the
                thread keeps its place, which is for a wait that ends by itself.
        """
        if not getattr(self._serving, "now", False) or not self._leave(what, awaits, at_the_limit):
            yield
            return
        try:
            yield
        except BaseException:
            self._come_back(awaits, at_once=True)
            raise
        else:
            self._come_back(awaits)

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = True) -> None:  # noqa: ARG002, FBT001, FBT002 (as its base has it)
        """Takes no more work, drops what has not begun, and ends each thread once its call returns; waits for none."""
        with self._lock:
            self._closed = True
            dropped = self._take_queued()
            while self._returning:
                self._free -= 1
                self._returning.popleft().release()
            for _ in range(self._idle):
                self._ready.put(None)
            self._idle = 0
        for future in dropped:
            future.cancel()

    # -- a thread that waits -----------------------------------------------------------------------------------------

    def _leave(self, what: str, awaits: Hashable, at_the_limit: str) -> bool:
        with self._lock:
            if self._away >= self._waiting_limit:
                if at_the_limit == "stay":
                    return False
                msg = (
                    f"{what} cannot wait: {self._away} sync workflows of this process do, each on a thread of its own, "
                    "and that is the limit. Raise the setting `waiting_threads`, or make workflows that wait async: "
                    "those need no thread"
                )
                raise ThreadLimitError(msg)
            self._away += 1
            self._free += 1
            if awaits is not None:
                self._awaited[awaits] += 1
                if awaits in self._others and awaits not in self._wanted:
                    self._wanted[awaits] = self._others.pop(awaits)
            self._fill()
        return True

    def _come_back(self, awaits: Hashable, *, at_once: bool = False) -> None:
        turn = None
        with self._lock:
            self._away -= 1
            if awaits is not None:
                self._awaited[awaits] -= 1
                if not self._awaited[awaits]:
                    del self._awaited[awaits]
            if at_once or self._closed or (self._free > 0 and not self._returning):
                self._free -= 1
            else:
                turn = threading.Lock()
                turn.acquire()
                self._returning.append(turn)
            self._fill()
        if turn is not None:
            turn.acquire()

    # -- places ------------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Gives free places away. The caller holds the lock."""
        while self._free > 0:
            if self._returning:
                self._free -= 1
                self._returning.popleft().release()
                continue
            key, call = self._next()
            if call is None:
                return
            if self._idle:
                self._idle -= 1
            elif not self._start_thread():
                self._wanted[key] = call
                self._wanted.move_to_end(key, last=False)
                if self._free == self._limit:  # no running thread will ever take the call
                    self._refuse_queued()
                return
            self._ready.put(call)
            self._free -= 1

    def _next(self) -> tuple[Hashable, _Call | None]:
        if self._wanted:
            return self._wanted.popitem(last=False)
        if self._others and self._free > self._away - self._room:
            return self._others.popitem(last=False)
        return None, None

    def _take_queued(self) -> list[Future[Any]]:
        queued = [future for queue in (self._wanted, self._others) for future, _ in queue.values()]
        self._wanted.clear()
        self._others.clear()
        return queued

    def _refuse_queued(self) -> None:
        for future in self._take_queued():
            if future.set_running_or_notify_cancel():
                future.set_exception(ThreadLimitError("the system starts no thread for this call; see the log"))

    def _start_thread(self) -> bool:
        name = f"{self._name}_{self._made + 1}"
        try:
            threading.Thread(target=self._serve, name=name, daemon=True).start()
        except RuntimeError as error:  # a limit of the system's; the call begins when a thread comes free
            logger.error(  # noqa: TRY400 (its traceback is no help)
                "the system starts no more threads (%s); %d sync calls wait for one of the %d that it has",
                *(error, len(self._wanted) + len(self._others) + 1, self._limit - self._free + self._away),
            )
            return False
        self._made += 1
        return True

    def _serve(self) -> None:
        self._serving.now = True
        while (call := self._ready.get()) is not None:
            complete(*call)
            del call  # an idle thread keeps no result alive
            with self._lock:
                self._free += 1
                self._idle += 1
                self._fill()
                if self._idle > (0 if self._closed else self._limit):
                    self._idle -= 1
                    return


class Place:
    """The place of a call, whose thread only waits while the place is lent, in however many tasks at a time.

    The thread takes the place again at once: more threads than the limit may run for a moment.
    """

    def __init__(self, pool: ThreadPool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._waits = 0
        self._is_away = False

    @contextmanager
    def lent(self) -> Iterator[None]:
        """The call only waits during the block."""
        with self._lock:
            self._waits += 1
            if self._waits == 1:
                self._is_away = self._pool._leave("it", None, "stay")  # noqa: SLF001 (a part of the pool)
        try:
            yield
        finally:
            with self._lock:
                self._waits -= 1
                if not self._waits and self._is_away:
                    self._pool._come_back(None, at_once=True)  # noqa: SLF001 (a part of the pool)


def thread_pools(settings: Settings) -> tuple[ThreadPool, ThreadPool]:
    """One pool for workflows and one for steps, which never wait for workflows' threads: sync bodies run their own."""
    limit = settings.waiting_threads
    return (
        ThreadPool(settings.workflow_threads, "dbosflow-workflow", waiting_limit=limit),
        ThreadPool(settings.step_threads, "dbosflow-step", waiting_limit=limit),
    )
