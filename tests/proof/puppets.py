"""A workflow whose branches do what a model tells them, one thing at a time, and the same again on a replay."""

from __future__ import annotations

import asyncio
from typing import Any

from dbosflow import Stream, close_stream_async, step, workflow

Command = tuple[Any, ...]


class Orders:
    """What one branch has been told so far. It is only ever added to, so that a replay is told the same."""

    def __init__(self) -> None:
        self.commands: list[Command] = []
        self.read = -1
        """How many commands the branch has carried out; -1 before it asked for the first."""
        self._news = asyncio.Event()

    def tell(self, *command: Any) -> None:
        """One more."""
        self.commands.append(command)
        self._news.set()

    @property
    def idle(self) -> bool:
        """Whether it waits for the next one."""
        return self.read == len(self.commands)

    async def get(self, place: int) -> Command:
        """The command at a place, once it is there."""
        self.read = max(self.read, place) if place < len(self.commands) else place
        while place >= len(self.commands):
            self._news.clear()
            await self._news.wait()
        return self.commands[place]


BOOKS: dict[str, list[Orders]] = {}
"""The orders of each puppet's branches."""


class Failure(Exception):  # noqa: N818 (it is ordered)
    """What an attempt fails with when it is told to."""


@step(max_attempts=1000, interval=0, retry_on=Failure)
async def puppet_step(name: str, branch: int, mode: Any) -> int:
    """An attempt that writes what it is told from now on, until it is told how it ends; the place after that."""
    orders = BOOKS[name][branch]
    place = len(orders.commands)
    while True:
        command = await orders.get(place)
        place += 1
        match command:
            case ("write", key, values):
                await Stream[Any, None](str(key)).writer(on_retry=mode).write_many_async(values)
            case ("fail",):
                raise Failure
            case _:
                return place


@workflow
async def puppet(name: str) -> str:
    """Branches that are told what to do, until each is told to end."""

    async def branch(number: int) -> None:
        orders, place = BOOKS[name][number], 0
        while True:
            command = await orders.get(place)
            place += 1
            match command:
                case ("write", key, values):
                    await Stream[Any, None](str(key)).writer().write_many_async(values)
                case ("close", key):
                    await close_stream_async(str(key))
                case ("step", mode):
                    place = await puppet_step(name, number, mode)
                case _:
                    return

    await asyncio.gather(*(branch(number) for number in range(len(BOOKS[name]))))
    return "done"
