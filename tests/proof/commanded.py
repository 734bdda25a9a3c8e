"""A workflow whose branches do what a model commands, one thing at a time, and the same again on a replay."""

from __future__ import annotations

import asyncio
from typing import Any

from dbosflow import Stream, close_stream_async, step, workflow

Command = tuple[Any, ...]


class BranchCommands:
    """The commands that one branch has got so far. They are only ever added to, so that a replay gets the same."""

    def __init__(self) -> None:
        self.given: list[Command] = []
        self.read = -1
        """How many commands the branch has carried out; -1 before it asked for the first."""
        self._news = asyncio.Event()

    def add(self, *command: Any) -> None:
        """Gives the branch one more command."""
        self.given.append(command)
        self._news.set()

    @property
    def idle(self) -> bool:
        """Whether it waits for the next one."""
        return self.read == len(self.given)

    async def get(self, place: int) -> Command:
        """The command at a place, once it is there."""
        self.read = max(self.read, place) if place < len(self.given) else place
        while place >= len(self.given):
            self._news.clear()
            await self._news.wait()
        return self.given[place]


COMMANDS: dict[str, list[BranchCommands]] = {}
"""The commands of each workflow's branches."""


class Failure(Exception):  # noqa: N818 (it is commanded)
    """What an attempt fails with on the command ``fail``."""


@step(max_attempts=1000, interval=0, retry_on=Failure)
async def commanded_step(name: str, branch: int, mode: Any) -> int:
    """An attempt that carries out commands from now on, up to the one that ends it; the place after that one."""
    commands = COMMANDS[name][branch]
    place = len(commands.given)
    while True:
        command = await commands.get(place)
        place += 1
        match command:
            case ("write", key, values):
                await Stream[Any, None](str(key)).writer(on_retry=mode).write_many_async(values)
            case ("fail",):
                raise Failure
            case _:
                return place


@workflow
async def commanded(name: str) -> str:
    """Branches that carry out their commands, up to the one that ends each."""

    async def branch(number: int) -> None:
        commands, place = COMMANDS[name][number], 0
        while True:
            command = await commands.get(place)
            place += 1
            match command:
                case ("write", key, values):
                    await Stream[Any, None](str(key)).writer().write_many_async(values)
                case ("close", key):
                    await close_stream_async(str(key))
                case ("step", mode):
                    place = await commanded_step(name, number, mode)
                case _:
                    return

    await asyncio.gather(*(branch(number) for number in range(len(COMMANDS[name]))))
    return "done"
