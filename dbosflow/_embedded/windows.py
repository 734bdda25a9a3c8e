"""The stand-in for the embedded server on Windows, which lacks the locks and signals that the server needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, Self

from dbosflow.errors import ConfigurationError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path


class EmbeddedServer:
    """Raises an error that says what to use instead."""

    url: str

    @classmethod
    def join(cls, data_dir: Path, *, timeout: float = 60.0, bin_dir: Path | None = None) -> Self:
        """Raises a ``ConfigurationError``."""
        _refuse(data_dir, timeout, bin_dir)

    @classmethod
    def ephemeral(cls, *, timeout: float = 60.0, bin_dir: Path | None = None) -> AbstractContextManager[Self]:
        """Raises a ``ConfigurationError``."""
        _refuse(timeout, bin_dir)

    def leave(self) -> None:
        """Does nothing, because nothing was joined."""


def _refuse(*_: object) -> NoReturn:
    message = "the embedded server does not run on Windows: set DBOSFLOW_DATABASE_URL to a Postgres server"
    raise ConfigurationError(message)
