"""The outside writers of a run: processes that are killed and begin anew, and tasks of the client."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from tests.chaos.plan import WRITERS
from tests.chaos.processes import Process
from tests.chaos.writing import write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from dbosflow import Engine
    from tests.chaos.jobs import Job, Writing


@dataclass
class Written:
    """What outsiders heard of their writes to one input."""

    offsets: dict[str, int] = field(default_factory=dict)
    """Where each value is that was acknowledged."""
    refused: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)

    def hear(self, answers: Sequence[Sequence[Any]]) -> None:
        """Takes in what a writer was answered, for each value its offset or ``None``."""
        for value, offset in answers:
            if offset is None:
                self.refused.add(value)
            elif self.offsets.setdefault(value, offset) != offset:
                self.complaints.append(f"{value!r} was acknowledged at {self.offsets[value]}, then at {offset}")


@dataclass
class _Task:
    """Something that a writer process is to do."""

    job: Job
    told: dict[str, Any]
    done: asyncio.Future[None]


class Outsiders:
    """All of them; a process that is killed is replaced by one that is told again what is not done."""

    def __init__(
        self,
        urls: Sequence[Callable[[str], str]],
        directory: Path,
        complain: Callable[[str], None],
        levels_every: float | None = None,
    ) -> None:
        self.written: dict[str, Written] = {}
        self.left: list[dict[str, Any]] = []
        self.acknowledged = 0
        """Answers that came, also of the writes that were repeated."""
        self.levels: dict[int, dict[str, int]] = {}
        """What each process said of itself last."""
        self.names = [f"chaos-writer-{number}" for number in range(WRITERS)]
        self._urls = urls
        self._directory = directory
        self._complain = complain
        self._levels_every = levels_every
        self._loop = asyncio.get_running_loop()
        self._numbers = count()
        self._ready: set[int] = set()
        self._locks = [asyncio.Lock() for _ in range(WRITERS)]
        self._tasks: list[dict[int, _Task]] = [{} for _ in range(WRITERS)]
        self.processes = [self._hire(place) for place in range(WRITERS)]

    @property
    def ready(self) -> bool:
        """Whether all processes listen."""
        return len(self._ready) == WRITERS

    async def write(self, engine: Engine, job: Job) -> None:
        """Has everything written to a workflow's input that is to be; returns when it is."""
        self.written[job.workflow_id] = Written()
        await asyncio.gather(*(self._write(engine, job, writing) for writing in job.writings))

    async def kill(self, place: int) -> None:
        """SIGKILL, and a successor that is told again what is not done."""
        async with self._locks[place]:
            killed = self.processes[place]
            killed.send(signal.SIGKILL)
            self.processes[place] = await asyncio.to_thread(self._hire, place)
            for task in self._tasks[place].values():
                self.processes[place].tell(**task.told)
            await asyncio.to_thread(killed.close)

    def end(self) -> None:
        """Ends the processes, which must leave in an orderly way."""
        for process in self.processes:
            if not process.end():
                self._complain(f"a writer did not end: see {process.log.name}")

    def close(self) -> None:
        """Makes sure that nothing is left of them."""
        for process in self.processes:
            process.close()

    async def _write(self, engine: Engine, job: Job, writing: Writing) -> None:
        told = asdict(writing) | {"id": job.workflow_id, "key": job.input, "keyed": writing.place is not None}
        if writing.place is None:
            await write(engine, told, lambda answers: self._answered(job, answers))
            return
        task = _Task(job, told | {"task": next(self._numbers)}, self._loop.create_future())
        self._tasks[writing.place][task.told["task"]] = task
        self.processes[writing.place].tell(**task.told)
        await task.done

    def _hire(self, place: int) -> Process:
        name = self.names[place]
        return Process(
            "writer",
            self._directory / f"{name}.log",
            lambda said: self._loop.call_soon_threadsafe(self._hear, place, said),
            url=self._urls[place](name),
            levels_every=self._levels_every,
        )

    def _hear(self, place: int, said: dict[str, Any]) -> None:
        if "ready" in said:
            self._ready.add(place)
        elif "level" in said:
            self.levels[place] = said["level"]
        elif "left" in said:
            self.left.append(said["left"])
        elif (task := self._tasks[place].get(said["task"])) is None:
            return  # what a killed process said last its successor, which was told to do it again, need not say
        elif "answers" in said:
            self._answered(task.job, said["answers"])
        else:
            del self._tasks[place][said["task"]]
            if said["error"] is not None:
                self._complain(f"{task.job.workflow_id}: a writer ended with {said['error']}")
            if not task.done.done():
                task.done.set_result(None)

    def _answered(self, job: Job, answers: Sequence[Sequence[Any]]) -> None:
        self.acknowledged += len(answers)
        self.written[job.workflow_id].hear(answers)
