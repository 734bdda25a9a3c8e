"""The lock file: each dependency at one version, with the hashes of its files, and in step with ``pyproject.toml``."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.lock"

_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^ ;\\]+)((?:[^\n]*\\\n)*[^\n]*)", re.MULTILINE)


def locked() -> dict[str, list[tuple[str, str]]]:
    """Version and the rest of the entry, its marker and hashes, of each package."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name, version, rest in _PINNED.findall(LOCK.read_text("utf-8")):
        found.setdefault(canonicalize_name(name), []).append((version, rest))
    return found


def required() -> list[Requirement]:
    """What the package and its extras ask for, but for the package itself."""
    project = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text("utf-8"))["project"]
    asked = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    return [one for one in map(Requirement, asked) if canonicalize_name(one.name) != project["name"]]


def test_each_requirement_is_locked_at_a_version_that_it_allows() -> None:
    """A change of ``pyproject.toml`` renews the lock: docs/operations.md says how."""
    pinned = locked()
    for one in required():
        versions = [version for version, _ in pinned.get(canonicalize_name(one.name), [])]
        assert versions, f"{one} is not in {LOCK.name}"
        assert all(one.specifier.contains(version) for version in versions), f"{one}: {versions}"
        for extra in one.extras:  # psycopg[binary] is psycopg-binary
            assert canonicalize_name(f"{one.name}-{extra}") in pinned


def test_each_locked_file_has_a_hash() -> None:
    """So that an index, or an attacker between, cannot give another file under the same version."""
    entries = locked()
    assert len(entries) >= len(required())
    for name, versions in entries.items():
        for version, rest in versions:
            assert re.search(r"--hash=sha256:[0-9a-f]{64}", rest), f"{name}=={version}"


def test_the_lock_names_no_place_of_its_own() -> None:
    """No index, file or directory of the machine that renewed it."""
    lines = [line for line in LOCK.read_text("utf-8").splitlines() if not line.lstrip().startswith("#")]
    assert not [line for line in lines if line.startswith("-") or "://" in line or "@ " in line]
