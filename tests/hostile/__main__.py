"""Tries the engine in databases as they come: ``python -m tests.hostile [WORD ...]``.

Each setting of a role, a database or the environment that could change what our statements mean, locales of each
provider, and encodings, on the server of ``DBOSFLOW_TEST_DATABASE_URL`` or an embedded one; with words those situations
whose names hold one. The exit status is 1 if something came out otherwise than anywhere else. A sample runs with the
tests.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback

from dbosflow._embedded import EmbeddedServer
from tests.conftest import URL_VARIABLE
from tests.hostile.situations import SITUATIONS
from tests.hostile.trial import tried


def main(words: list[str]) -> int:
    """Tries them all, or those that are named."""
    failed = 0
    with contextlib.ExitStack() as resources:
        url = os.environ.get(URL_VARIABLE) or resources.enter_context(EmbeddedServer.ephemeral()).url
        for situation in SITUATIONS:
            if words and not any(word in situation.name for word in words):
                continue
            try:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    why_not = tried(url, situation)
            except Exception:  # noqa: BLE001 (it is said)
                failed += 1
                print(f"FAIL {situation.name}\n{traceback.format_exc()}", flush=True)
            else:
                print(f"PASS {situation.name}" if why_not is None else f"---- {situation.name}: {why_not}", flush=True)
    print(f"failed: {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
