"""Holds the keys of frameworks' programs still over two versions each: ``python -m tests.frameworks [NAME ...]``.

An upgrade of a library that makes tasks must not rename the records of workflows under way, or each of them is parked.
So one program a framework, with fake models, runs on two of its versions, each in an environment of its own that pip
fills; the keys of both must be those of ``keys.json``, and a crash at each of its records must change nothing. Needs a
package index. Not a part of ``.ci/run``: it takes some minutes. ``--pin`` writes ``keys.json`` anew: keys that change
there change for users, too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from dbosflow.testing.server import SERVER_VARIABLE, shared_server

ROOT = Path(__file__).parents[2]
KEYS = Path(__file__).with_name("keys.json")

VERSIONS = {
    "anyio": ("anyio", "4.11.0", "4.16.0"),
    "pydantic_ai": ("pydantic-ai-slim", "1.107.0", "2.62.0"),
    "openai_agents": ("openai-agents", "0.3.3", "0.24.0"),
    "langgraph": ("langgraph", "0.6.11", "1.2.24"),
    "llama_index_workflows": ("llama-index-workflows", "2.2.2", "2.26.1"),
}
"""The package behind each program, and the versions that are compared."""


def run(program: str, package: str, version: str) -> dict[str, Any] | None:
    """What the program gave in this version: its keys, its result, and how many crashes it has come through."""
    with tempfile.TemporaryDirectory(prefix="dbosflow-framework-") as directory:
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        python = Path(directory) / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "-qq", "-e", str(ROOT), f"{package}=={version}"], check=True)
        done = subprocess.run(
            [python, "-m", "tests.frameworks.inside", program],
            cwd=ROOT,
            env={**os.environ, SERVER_VARIABLE: shared_server()},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    if done.returncode:
        return None
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(program: str, pinned: list[str], *, pin: bool) -> list[str] | None:
    """The keys of the program, if they are the same in both versions and the pinned ones."""
    package, *versions = VERSIONS[program]
    keys: list[str] | None = None if pin else pinned
    good = True
    for version in versions:
        found = run(program, package, version)
        if found is None:
            print(f"{package} {version}: FAILED", flush=True)
            good = False
            continue
        keys = found["keys"] if keys is None else keys
        lost, new = sorted(set(keys) - set(found["keys"])), sorted(set(found["keys"]) - set(keys))
        said = f"{len(found['keys'])} records, {found['crashes']} crashes"
        if lost or new:
            said, good = f"{said}, OTHER KEYS: not there {lost}, not pinned {new}", False
        print(f"{package} {version}: {said}", flush=True)
    return keys if good else None


def main() -> int:
    """Compares the programs that the command line names, or all."""
    names = [name for name in sys.argv[1:] if name != "--pin"] or list(VERSIONS)
    pin = "--pin" in sys.argv
    pinned: dict[str, list[str]] = json.loads(KEYS.read_text("utf-8")) if KEYS.exists() else {}
    found = {name: compare(name, pinned.get(name, []), pin=pin) for name in names}
    if pin:
        pinned.update({name: keys for name, keys in found.items() if keys is not None})
        KEYS.write_text(f"{json.dumps(pinned, indent=2)}\n", "utf-8")
    return 0 if all(keys is not None for keys in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
