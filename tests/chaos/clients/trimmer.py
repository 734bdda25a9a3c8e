"""The client that trims streams while their workflows run, are killed and replayed."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dbosflow.errors import StreamNotFoundError
from tests.chaos.clients.writing import MAY_BE_TRIED_AGAIN
from tests.chaos.history.run_history import TrimHistory

if TYPE_CHECKING:
    from dbosflow import Engine
    from tests.chaos.generator import Operation

_LONGEST_PAUSE = 0.6


@dataclass
class Trimmer:
    """Trims what an operation says, as far as it may be: of a loop's input only what the loop will not read again."""

    trimmed: dict[str, TrimHistory] = field(default_factory=dict)
    count: int = 0

    async def trim(self, engine: Engine, operation: Operation, running: asyncio.Task[None]) -> None:
        """Trims at random moments until the workflow has ended, and once more then."""
        assert operation.trims is not None
        key = operation.trims
        found = self.trimmed[operation.workflow_id] = TrimHistory(key)
        over = False
        while not over:
            await asyncio.wait({running}, timeout=random.uniform(0.0, _LONGEST_PAUSE))
            over = running.done()
            try:
                tail = await self._tail(engine, operation)
                before = max(found.asked, random.choice([tail, random.randint(0, tail)]))
                found.asked = max(found.asked, before)
                found.first = max(
                    found.first, await engine.streams.trim_async(operation.workflow_id, key, before=before)
                )
                self.count += 1
            except StreamNotFoundError:
                continue  # nobody has written to it yet
            except MAY_BE_TRIED_AGAIN:
                over = False

    @staticmethod
    async def _tail(engine: Engine, operation: Operation) -> int:
        """The offset before which everything may go."""
        assert operation.trims is not None
        if operation.trims != operation.input:
            return (await engine.streams.info_async(operation.workflow_id, operation.trims)).tail
        # A loop reads nothing again of what is on record, if all before it is, too.
        steps = await engine.list_steps_async(operation.workflow_id)
        done = {int(step.key.rpartition("/")[2]) for step in steps if step.kind == "step" and "/" in step.key}
        return next(offset for offset in range(len(done) + 1) if offset not in done)
