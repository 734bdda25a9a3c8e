"""An append is durable once, also when the server is killed between the commit and the answer."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROGRAM = Path(__file__).parent / "programs" / "dying_server.py"
_TEXT = {"Content-Type": "text/plain"}


@contextmanager
def server(url: str, flag: Path) -> Iterator[httpx.Client]:
    """A client of a server in a process of its own."""
    command = [sys.executable, str(_PROGRAM), url, str(flag)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/v1/stream/", timeout=60) as client:
            yield client
    finally:
        process.kill()
        process.communicate()


def test_a_repeated_append_after_a_kill_changes_nothing(database_url: str, tmp_path: Path) -> None:
    flag = tmp_path / "die"
    producer = _TEXT | {"Producer-Id": "x", "Producer-Epoch": "0"}
    with server(database_url, flag) as client:
        client.put("s", headers=_TEXT)
        client.post("s", headers=producer | {"Producer-Seq": "0"}, content=b"a").raise_for_status()
        flag.touch()
        with pytest.raises(httpx.RemoteProtocolError):
            client.post("s", headers=producer | {"Producer-Seq": "1", "Stream-Closed": "true"}, content=b"b")
    with server(database_url, flag) as client:
        again = client.post("s", headers=producer | {"Producer-Seq": "1", "Stream-Closed": "true"}, content=b"b")
        assert (again.status_code, again.headers["producer-seq"], again.headers["stream-closed"]) == (204, "1", "true")
        assert client.get("s").content == b"ab"
