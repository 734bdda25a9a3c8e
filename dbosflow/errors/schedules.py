"""Errors about schedules."""

from __future__ import annotations

from dbosflow.errors.general import DbosflowError


class ScheduleNotFoundError(DbosflowError):
    """No schedule has this name. ``schedule`` says which one."""

    def __init__(self, schedule: str, message: str) -> None:
        super().__init__(schedule, message)
        self.schedule = schedule
        self.message = message

    def __str__(self) -> str:
        return self.message
