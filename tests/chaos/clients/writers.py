"""The writers: processes that write to inputs, are killed and begin anew, and tasks of the run itself."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import asdict, dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from tests.chaos.clients.client_processes import ClientProcesses
from tests.chaos.clients.writing import write
from tests.chaos.history.run_history import WriteHistory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dbosflow import Engine
    from tests.chaos.generator import Operation, Writing
    from tests.chaos.nodes.processes import Launcher


@dataclass
class _Task:
    """Something that a writer process is to do."""

    operation: Operation
    request: dict[str, Any]
    done: asyncio.Future[None]


class Writers(ClientProcesses):
    """All writer processes; one that is killed is replaced by one that is requested again what is not done."""

    def __init__(self, urls: Sequence[Callable[[str], str]], launcher: Launcher) -> None:
        super().__init__("writer", urls, launcher)
        self.written: dict[str, WriteHistory] = {}
        self.acknowledged = 0
        """Answers that came, also of the writes that were repeated."""
        self._numbers = count()
        self._locks = [asyncio.Lock() for _ in urls]
        self._tasks: list[dict[int, _Task]] = [{} for _ in urls]

    async def write(self, engine: Engine, operation: Operation) -> None:
        """Has everything written to a workflow's input that is to be; returns when it is."""
        self.written[operation.workflow_id] = WriteHistory()
        await asyncio.gather(*(self._write(engine, operation, writing) for writing in operation.writings))

    async def kill(self, index: int) -> None:
        """SIGKILL, and a successor that is requested again what is not done."""
        async with self._locks[index]:
            killed = self.processes[index]
            killed.send_signal(signal.SIGKILL)
            self.processes[index] = await asyncio.to_thread(self._start, index)
            for task in self._tasks[index].values():
                self.processes[index].send(**task.request)
            await asyncio.to_thread(killed.close)

    def received(self, index: int, message: dict[str, Any]) -> None:
        """What a writer was answered, or that it is done."""
        task = self._tasks[index].get(message["task"])
        if task is None:
            return  # sent by a killed process; its successor has done it again
        if "answers" in message:
            self._answered(task.operation, message["answers"])
            return
        del self._tasks[index][message["task"]]
        if message["error"] is not None:
            self._launcher.on_violation(f"{task.operation.workflow_id}: a writer ended with {message['error']}")
        if not task.done.done():
            task.done.set_result(None)

    def sent(self, operation: Operation, value: str, offset: int) -> None:
        """Somebody else has written to it, too."""
        self.written[operation.workflow_id].add([(value, offset)])

    async def _write(self, engine: Engine, operation: Operation, writing: Writing) -> None:
        request = asdict(writing) | {
            "id": operation.workflow_id,
            "key": operation.input or operation.topic,
            "sends": operation.topic is not None,
            "keyed": writing.process is not None,
        }
        if writing.process is None:
            await write(engine, request, lambda answers: self._answered(operation, answers))
            return
        task = _Task(operation, request | {"task": next(self._numbers)}, self._loop.create_future())
        self._tasks[writing.process][task.request["task"]] = task
        self.processes[writing.process].send(**task.request)
        await task.done

    def _answered(self, operation: Operation, answers: Sequence[Sequence[Any]]) -> None:
        self.acknowledged += len(answers)
        self.written[operation.workflow_id].add(answers)
