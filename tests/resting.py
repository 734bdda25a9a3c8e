"""Engines at rest: none of their services has anything to do before it is woken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbosflow._runtime.process.service import Service
from dbosflow._runtime.wakeups.listener import Listener

if TYPE_CHECKING:
    import pytest


class Resting:
    """Knows the services of all engines, and which of them wait to be woken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._opened: list[Service] = []
        self._pausing: set[Service] = set()
        open_service, pause = Service.open, Service._pause

        def opened(service: Service) -> None:
            self._opened.append(service)
            open_service(service)

        async def paused(service: Service, seconds: float | None) -> None:
            self._pausing.add(service)
            try:
                await pause(service, seconds)
            finally:
                self._pausing.discard(service)

        monkeypatch.setattr(Service, "open", opened)
        monkeypatch.setattr(Service, "_pause", paused)

    def __call__(self) -> bool:
        """Whether no service has anything to do, and each that listens does so."""
        services = [one for one in self._opened if not one._is_closed]
        return all(
            one in self._pausing and not one._woken.is_set() and (not isinstance(one, Listener) or one.healthy.is_set())
            for one in services
        )
