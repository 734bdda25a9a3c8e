"""One request to an ASGI application, without a network."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of an application."""

    status: int
    headers: Mapping[str, str]
    """With names in lower case."""
    body: bytes


async def request(app: Any, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
    """Sends a request of this machine to an application, and waits for the end of its answer. ``path`` is encoded."""
    pairs = {"host": "localhost", **{name.lower(): value for name, value in headers.items()}}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": quote(path, safe="/%").encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs.items()],
        "client": ("127.0.0.1", 1),
        "server": ("localhost", 80),
    }
    requests = [{"type": "http.request", "body": body, "more_body": False}]
    parts: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if requests:
            return requests.pop()
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]  # the client stays

    async def send(message: dict[str, Any]) -> None:
        parts.append(message)

    await app(scope, receive, send)
    found = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in parts[0]["headers"]}
    return Answer(parts[0]["status"], found, b"".join(part.get("body", b"") for part in parts[1:]))
