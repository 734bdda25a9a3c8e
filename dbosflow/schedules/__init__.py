"""Schedules: workflows that are started at certain times."""

from __future__ import annotations

from dbosflow.schedules.definition import Schedule, schedule

__all__ = ["Schedule", "schedule"]
