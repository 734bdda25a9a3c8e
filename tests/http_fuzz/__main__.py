"""Asks an application for anything that its OpenAPI document permits, and for what it does not permit.

```text
pipx install schemathesis
python -m tests.http_fuzz --examples 300
```

It finds no answer of 500 or above, none that the document does not describe, and no document that is not valid.
schemathesis is no requirement of the tests, since it comes with thirty packages. The server is that of
``DBOSFLOW_TEST_DATABASE_URL``, else an embedded one.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from dbosflow import Engine
from dbosflow.http import create_app
from dbosflow.http.server import Server
from dbosflow.testing import fresh_database
from tests.http_fuzz.program import EXPOSED, document, talking
from tests.support import eventually_async

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
TALK = "talk"
_CONFIG = """\
[parameters]
token = "{token}"

[[operations]]
include-path-regex = "^/talks/"
parameters = {{ workflow_id = "{talk}" }}
"""


async def fuzz(examples: int, seed: int) -> int:
    """Serves the application and runs schemathesis against it; its exit status."""
    with fresh_database() as url:
        async with Engine(url, grace=0.0) as engine:
            await engine.start_async(talking.options(workflow_id=TALK))
            token = (await engine.read_stream_async(TALK, "tokens").read()).value
            server = Server(create_app(engine, endpoints=[*EXPOSED, document]), "127.0.0.1", 0)
            serving = asyncio.create_task(server.serve())
            await eventually_async(lambda: server.started)
            port = server.servers[0].sockets[0].getsockname()[1]
            try:
                return await _schemathesis(f"http://127.0.0.1:{port}", token, examples, seed)
            finally:
                server.stop()
                await serving


async def _schemathesis(base: str, token: str, examples: int, seed: int) -> int:
    program = shutil.which("schemathesis")
    if program is None:
        print("schemathesis is not there: pipx install schemathesis", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory) / "schemathesis.toml"
        config.write_text(_CONFIG.format(talk=TALK, token=token))
        process = await asyncio.create_subprocess_exec(
            *(program, f"--config-file={config}", "run", f"{base}/openapi.json"),
            *(f"--max-examples={examples}", f"--seed={seed}", f"--checks={CHECKS}"),
            *("--phases=examples,coverage,fuzzing,stateful", "--request-timeout=20", "--workers=1", "--no-color"),
            cwd=directory,
        )
        return await process.wait()


def main() -> int:
    """Reads the arguments, and fuzzes."""
    parser = argparse.ArgumentParser(prog="python -m tests.http_fuzz")
    parser.add_argument("--examples", type=int, default=100, help="for each operation (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    return asyncio.run(fuzz(args.examples, args.seed))


if __name__ == "__main__":
    sys.exit(main())
