"""Within one version's environment: the keys of a framework's program as JSON, and a crash at each of its records."""

from __future__ import annotations

import importlib
import json
import sys

from dbosflow import Engine
from dbosflow.testing import assert_crash_safe
from dbosflow.testing.server import fresh_database


def main(name: str) -> None:
    """Runs the program of that name."""
    program = importlib.import_module(f"tests.frameworks.programs.{name}").program
    with fresh_database() as url, Engine(url) as engine:
        result = engine.run(program.options(workflow_id="w"))
        keys = sorted(step.key for step in engine.list_steps("w"))
    report = assert_crash_safe(program)
    print(json.dumps({"keys": keys, "result": result, "crashes": report.points}))


if __name__ == "__main__":
    main(sys.argv[1])
