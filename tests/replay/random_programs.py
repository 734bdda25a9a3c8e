"""Random asyncio programs: branches that share a log, locks, events, queues and each other's fate.

The argument of each step names what its branch has seen, so an outcome that comes at another moment, or goes to another
branch, changes what follows. Programs follow from their records: plain timers either never fire or always do, since a
replay goes through them faster than the first run did.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dbosflow import create_token_async, durable, patched, recv_async, requests, send_async, timeout
from dbosflow.errors import MessageTimeoutError
from dbosflow.failures import dump_error
from dbosflow.types import FrameKind
from tests.replay.model import Program, StepError, Trace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

NEVER = 30.0
"""Seconds of virtual time that no program takes."""

_LEAVES = (
    *("step", "step", "step", "relaxed", "relaxed", "relaxed_many", "relaxed_fail"),
    *("fail", "flaky", "log", "zero", "lock", "put", "get"),
    *("write", "write_many", "flush", "sleep", "draw", "draw"),
)
_MEETINGS = ("each", "first", "set_aside", "mail", "late_mail", "token", "late_token", "request")
_NESTS = ("spawn", "gather", "wait_for", "waiter")

# A timer that fires while a cancellation is on its way is a race that asyncio itself leaves open: a program has either.
_WITH_TIMERS = (*_LEAVES, *_MEETINGS, "slow"), (*_NESTS, "group", "limited", "limited")
_WITH_CANCELLATIONS = (*_LEAVES, *_MEETINGS, "cancel", "cancel", "drop_loser"), (*_NESTS, "shield", "failing_group")


@dataclass(frozen=True)
class Operation:
    """One line of a branch."""

    kind: str
    number: int = 0
    bodies: tuple[Lines, ...] = ()


Lines = tuple[Operation, ...]


def plan(generator: random.Random, kinds: tuple[tuple[str, ...], tuple[str, ...]], depth: int = 0) -> Lines:
    """The lines of a branch."""
    leaves, nests = kinds
    lines = []
    for _ in range(generator.randint(2, 4)):
        kind = generator.choice((*leaves, *nests, *nests) if depth < 2 else leaves)
        branches = generator.randint(2, 3) if kind in ("gather", "group") else 1
        bodies = tuple(plan(generator, kinds, depth + 1) for _ in range(branches)) if kind in nests else ()
        lines.append(Operation(kind, generator.randint(0, 5), bodies))
    return tuple(lines)


def program(seed: int, *, changed: bool = False) -> Program:
    """The program of that seed; one that is ``changed`` does more where ``dbosflow.patched`` lets it.

    Every other one continues as new, once or twice.
    """
    generator = random.Random(seed)
    kinds = generator.choice((_WITH_TIMERS, _WITH_CANCELLATIONS))
    iterations = [
        [plan(generator, kinds) for _ in range(generator.randint(2, 3))] for _ in range(generator.choice((1, 1, 2, 3)))
    ]

    async def run(trace: Trace) -> Any:
        interpreter = _Interpreter(trace, changed, [f"after {trace.seen}"])
        result = await interpreter.run(iterations[trace.iteration])
        if trace.iteration + 1 < len(iterations):
            trace.continue_as_new(interpreter.seen)
        return result

    return run


@dataclass
class _Interpreter:
    """Runs a plan. Everything it holds is shared by its branches."""

    trace: Trace
    changed: bool = False
    log: list[str] = field(default_factory=list)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    queue: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    """What anybody may cancel."""
    drawn: list[str] = field(default_factory=list)
    racers: list[asyncio.Task[None]] = field(default_factory=list)
    events: list[asyncio.Event] = field(default_factory=lambda: [asyncio.Event() for _ in range(3)])

    async def run(self, branches: list[Lines]) -> Any:
        await asyncio.gather(*(self.branch(lines, str(number)) for number, lines in enumerate(branches)))
        for event in self.events:
            event.set()
        while self.tasks:
            with suppress(asyncio.CancelledError):
                await self.tasks.pop(0)
        if self.racers:
            await asyncio.wait(self.racers)
        await self.trace.step("end", self.seen)
        return self.log

    @property
    def seen(self) -> str:
        """What has happened so far, in a few letters."""
        return hashlib.md5("|".join(self.log).encode()).hexdigest()[:6]

    async def branch(self, lines: Lines, name: str) -> None:
        """One branch."""
        for position, line in enumerate(lines):
            act: Callable[[str, Operation], Awaitable[None]] = getattr(self, f"_{line.kind}")
            await act(f"{name}.{position}", line)
            if self.changed and (position + line.number) % 2 and patched("more"):
                await self.trace.step("more", f"{name}.{position}@{self.seen}")
                self.log.append(f"{name}.{position} did more")

    # -- lines without branches --------------------------------------------------------------------------------------

    async def _step(self, name: str, line: Operation) -> None:
        await self.trace.step("work", f"{name}@{self.seen}")
        self.log.append(name)

    async def _relaxed(self, name: str, line: Operation) -> None:
        """What follows, in this branch and in others, is made of an outcome that a crash may forget."""
        self.log.append(await self.trace.relaxed("relaxed", f"{name}@{self.seen}"))

    async def _relaxed_many(self, name: str, line: Operation) -> None:
        for number in range(line.number):
            self.log.append(await self.trace.relaxed("quick", f"{name}.{number}@{self.seen}", takes=0))

    async def _relaxed_fail(self, name: str, line: Operation) -> None:
        with suppress(StepError):
            await self.trace.relaxed("relaxed fail", f"{name}@{self.seen}", fails=True)
        self.log.append(f"{name} failed")

    async def _fail(self, name: str, line: Operation) -> None:
        with suppress(StepError):
            await self.trace.step("fail", f"{name}@{self.seen}", fails=True)
        self.log.append(f"{name} failed")

    async def _flaky(self, name: str, line: Operation) -> None:
        try:
            await self.trace.step("flaky", f"{name}@{self.seen}", attempts=3)
        except StepError:
            self.log.append(f"{name} failed thrice")
        self.log.append(name)

    async def _log(self, name: str, line: Operation) -> None:
        self.log.append(f"{name} was here")

    async def _zero(self, name: str, line: Operation) -> None:
        for _ in range(line.number):
            await asyncio.sleep(0)
        self.log.append(f"{name} span")

    async def _lock(self, name: str, line: Operation) -> None:
        async with self.lock:
            self.log.append(f"{name} locked")
            await self.trace.step("locked", f"{name}@{self.seen}")

    async def _put(self, name: str, line: Operation) -> None:
        self.queue.put_nowait(name)

    async def _get(self, name: str, line: Operation) -> None:
        if not self.queue.empty():
            self.log.append(f"{name} got {self.queue.get_nowait()}")

    async def _write(self, name: str, line: Operation) -> None:
        await self.trace.write(f"{name}@{self.seen}")

    async def _write_many(self, name: str, line: Operation) -> None:
        for number in range(30 * line.number):  # beyond 64 the writer lets the others go on
            await self.trace.write(f"{name}.{number}@{self.seen}")
        self.log.append(f"{name} wrote")

    async def _sleep(self, name: str, line: Operation) -> None:
        await self.trace.sleep(0.001 * line.number)
        self.log.append(f"{name} slept")

    async def _draw(self, name: str, line: Operation) -> None:
        """A step gets what is drawn here, or was drawn before: on a replay it must get the same."""
        self.drawn.append(durable.uuid4().hex)
        if line.number % 2:
            await self.trace.step("drawn", f"{name}@{self.seen}, {self.drawn[-1 - line.number % len(self.drawn)]}")
        self.log.append(f"{name} drew")

    async def _flush(self, name: str, line: Operation) -> None:
        await self.trace.flush()
        self.log.append(f"{name} flushed")

    async def _slow(self, name: str, line: Operation) -> None:
        """A step that is too slow for its timeout."""
        try:
            async with asyncio.timeout(0.0005 * line.number):
                await self.trace.step("slow", f"{name}@{self.seen}", takes=NEVER)
        except TimeoutError:
            self.log.append(f"{name} too slow")

    # -- lines that meet other branches ------------------------------------------------------------------------------

    async def _cancel(self, name: str, line: Operation) -> None:
        if self.tasks:
            self.tasks[line.number % len(self.tasks)].cancel()
            self.log.append(f"{name} cancelled")

    async def _set_aside(self, name: str, line: Operation) -> None:
        """A task that is made now and awaited at the end."""
        self.tasks.append(asyncio.create_task(self._race(name, line.number)))

    async def _race(self, name: str, number: int) -> None:
        await self.trace.step("race", f"{name}.{number}@{self.seen}")
        self.log.append(f"{name}.{number} arrived")

    async def _first(self, name: str, line: Operation) -> None:
        """Two steps race."""
        await self._run_race(name)

    async def _drop_loser(self, name: str, line: Operation) -> None:
        """Two steps race, and the loser is cancelled."""
        for loser in await self._run_race(name):
            loser.cancel()

    async def _run_race(self, name: str) -> set[asyncio.Task[None]]:
        racers = [asyncio.create_task(self._race(name, number)) for number in range(2)]
        self.racers += racers
        done, pending = await asyncio.wait(racers, return_when=asyncio.FIRST_COMPLETED)
        self.log.append(f"{name} {[racer in done for racer in racers]}")
        return pending

    async def _mail(self, name: str, line: Operation) -> None:
        """Sends a message, and receives one: perhaps that of another branch."""
        await send_async("w", f"{name}@{self.seen}", "mail")
        self.log.append(f"{name} got {await recv_async('mail')}")

    async def _late_mail(self, name: str, line: Operation) -> None:
        """Waits for what never comes."""
        try:
            await recv_async("never", timeout=0.001 * line.number)
        except MessageTimeoutError:
            self.log.append(f"{name} got nothing")

    async def _token(self, name: str, line: Operation) -> None:
        """Waits for an answer that comes soon, a value or an error; perhaps not that long, and then again."""
        token = await create_token_async()
        operation = token._id.operation
        kind = FrameKind.ERROR if line.number % 2 else FrameKind.COMPLETE
        text = dump_error(StepError(operation)) if line.number % 2 else f'"{operation}"'
        self.trace.answer(operation, kind, text, self.trace.random.choice([0, 0.001, 0.003]))
        for limit in (0.002, None) if line.number > 2 else (None,):
            try:
                self.log.append(f"{name} was answered {await token.wait_async(timeout=limit)}")
            except StepError as error:
                self.log.append(f"{name} was rejected with {error}")
            except MessageTimeoutError:
                self.log.append(f"{name} waits again")

    async def _late_token(self, name: str, line: Operation) -> None:
        """Waits for an answer that nobody gives."""
        try:
            await (await create_token_async()).wait_async(timeout=0.001 * line.number)
        except MessageTimeoutError:
            self.log.append(f"{name} was not answered")

    async def _request(self, name: str, line: Operation) -> None:
        """Asks, and replies to a request: perhaps that of another branch, or of an iteration before."""
        await send_async("w", f"{name}@{self.seen}", "asked")
        async for request in requests("asked", type=str, reply=str):
            reply = f"{name} replies to {request.value}"
            self.trace.replied.append(reply)
            await request.reply(reply)
            self.log.append(reply)
            break

    async def _each(self, name: str, line: Operation) -> None:
        """Outcomes in the order of their arrival."""
        tasks = [asyncio.create_task(self._race(name, number)) for number in range(3)]
        self.racers += tasks
        for arrived, task in enumerate(asyncio.as_completed(tasks)):
            await task
            self.log.append(f"{name}: {arrived} of {len(tasks)}")

    # -- lines with branches of their own ----------------------------------------------------------------------------

    async def _spawn(self, name: str, line: Operation) -> None:
        self.tasks.append(asyncio.create_task(self.branch(line.bodies[0], name)))

    async def _gather(self, name: str, line: Operation) -> None:
        await asyncio.gather(*(self.branch(body, f"{name}.{number}") for number, body in enumerate(line.bodies)))

    async def _group(self, name: str, line: Operation) -> None:
        async with asyncio.TaskGroup() as group:
            for number, body in enumerate(line.bodies):
                group.create_task(self.branch(body, f"{name}.{number}"))

    async def _failing_group(self, name: str, line: Operation) -> None:
        """A sibling fails, and the branch is cancelled in whatever it is. A group drops many in the order of a set."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.branch(line.bodies[0], name))
                group.create_task(self._failing(name))
        except* StepError:
            self.log.append(f"{name} failed")

    async def _failing(self, name: str) -> None:
        await self.trace.step("fatal", f"{name}@{self.seen}", fails=True)

    async def _wait_for(self, name: str, line: Operation) -> None:
        await asyncio.wait_for(self.branch(line.bodies[0], name), NEVER)

    async def _limited(self, name: str, line: Operation) -> None:
        """A durable timeout that may be faster or not, as the first run has it."""
        try:
            async with timeout(0.001 * line.number):
                await self.branch(line.bodies[0], name)
        except TimeoutError:
            self.log.append(f"{name} took too long")

    async def _shield(self, name: str, line: Operation) -> None:
        """A branch that goes on when its parent is cancelled."""
        task = asyncio.create_task(self.branch(line.bodies[0], name))
        self.tasks.append(task)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            self.log.append(f"{name} cancelled")
            if not task.done():  # it was not the shielded one that was cancelled
                raise

    async def _waiter(self, name: str, line: Operation) -> None:
        """A branch that waits for an event, which its sibling sets in any case."""
        event = asyncio.Event()

        async def waits() -> None:
            await event.wait()
            self.log.append(f"{name} woken")
            await self.trace.step("woken", f"{name}@{self.seen}")

        async def sets() -> None:
            try:
                await self.branch(line.bodies[0], name)
            finally:
                event.set()

        await asyncio.gather(waits(), sets())
