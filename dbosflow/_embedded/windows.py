"""The face of the embedded server where there is none: Windows has neither the locks nor the signals it is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, Self

from dbosflow.errors import ConfigurationError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path


class EmbeddedServer:
    """Says, when it is asked for, what to do instead."""

    url: str

    @classmethod
    def join(cls, data_dir: Path, *, timeout: float = 60.0, bin_dir: Path | None = None) -> Self:
        """Raise ``ConfigurationError``."""
        _refuse(data_dir, timeout, bin_dir)

    @classmethod
    def ephemeral(cls, *, timeout: float = 60.0, bin_dir: Path | None = None) -> AbstractContextManager[Self]:
        """Raise ``ConfigurationError``."""
        _refuse(timeout, bin_dir)

    def leave(self) -> None:
        """Nothing was joined."""


def _refuse(*_: object) -> NoReturn:
    message = "the embedded server does not run on Windows: set DBOSFLOW_DATABASE_URL to a Postgres server"
    raise ConfigurationError(message)
