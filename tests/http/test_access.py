"""Who may read over HTTP: this machine by default, whom a hook permits, and who has a token."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import jwt
import pytest
from starlette.exceptions import HTTPException

from dbosflow.errors import ConfigurationError
from dbosflow.http import Limits, ReadTokens, create_app
from dbosflow.http.access import Access
from tests.http.connection import Connection
from tests.http.flows import pause_in_the_middle, talk
from tests.http.test_reading import stream_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from dbosflow import Engine
    from dbosflow.http import HttpApp

SECRET = b"a secret of at least 32 bytes ..."
TOKENS = ReadTokens(SECRET)


@pytest.fixture
async def path(engine: Engine) -> str:
    """A stream that has ended."""
    handle = await engine.start_async(talk.options(workflow_id="w"), 1)
    await handle.result_async()
    return stream_of("w")


async def status(
    app: HttpApp, path: str, headers: Mapping[str, str] | None = None, *, method: str = "GET", client: str = "127.0.0.1"
) -> int:
    """The status of an answer."""

    async def from_there(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "client": (client, 1234)}, receive, send)

    answer = Connection(from_there, path, headers, method)
    await answer.whole()
    assert answer.status < 400 or b"t0" not in answer.body
    return answer.status


@pytest.mark.parametrize(
    ("headers", "client", "expected"),
    [
        ({}, "127.0.0.1", 200),
        ({"host": "127.0.0.1:8000"}, "127.0.0.1", 200),
        ({"host": "[::1]:8000"}, "::1", 200),
        ({"host": "localhost.", "origin": "http://localhost:5173", "sec-fetch-site": "same-site"}, "127.8.8.8", 200),
        ({}, "192.168.1.2", 403),
        ({"host": "attacker.example"}, "127.0.0.1", 403),  # DNS rebinding
        ({"host": "localhost.attacker.example"}, "127.0.0.1", 403),
        ({"host": "127.0.0.1.attacker.example"}, "127.0.0.1", 403),
        ({"host": ""}, "127.0.0.1", 403),
        ({"host": "[::1"}, "127.0.0.1", 403),
        ({"origin": "https://attacker.example"}, "127.0.0.1", 403),
        ({"origin": "null"}, "127.0.0.1", 403),
        ({"sec-fetch-site": "cross-site"}, "127.0.0.1", 403),
        ({"x-forwarded-for": "127.0.0.1"}, "127.0.0.1", 403),
        ({"forwarded": "for=127.0.0.1"}, "127.0.0.1", 403),
    ],
)
async def test_without_a_hook_only_this_machine_is_answered(
    engine: Engine, path: str, headers: dict[str, str], client: str, expected: int
) -> None:
    app = create_app(engine, streams=["tokens"])
    assert await status(app, path, headers, client=client) == expected


@pytest.mark.parametrize(
    ("headers", "permitted"),
    [
        ({}, True),
        ({"host": "api.example.com", "origin": "https://api.example.com"}, True),
        ({"host": "api.example.com", "origin": "https://app.example.com"}, True),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"host": "10.0.0.7:8000", "origin": "https://api.example.com", "sec-fetch-site": "same-origin"}, True),
        ({"host": "10.0.0.7:8000", "origin": "https://attacker.example", "sec-fetch-site": "cross-site"}, False),
        ({"host": "api.example.com", "origin": "https://attacker.example"}, False),
        ({"host": "api.example.com", "origin": "null"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
    ],
)
@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_a_page_of_another_site_changes_nothing(headers: dict[str, str], *, permitted: bool, method: str) -> None:
    """Whatever the hook says: the browser sends its user's cookies along."""
    access = Access(lambda request, workflow_id, action: True, ["https://app.example.com"])
    seen: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        from starlette.requests import Request

        try:
            await access.check(Request(scope, receive), "w", "cancel")
        except HTTPException as error:
            seen.append(error.status_code != 403)
        else:
            seen.append(True)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    await Connection(app, "/", headers, method).whole()
    assert seen == [permitted]


async def test_a_hook_decides(engine: Engine, path: str) -> None:
    """Sync or async; a name, or yes; and what it raises is the answer. One that forgets to answer refuses."""
    asked: list[object] = []

    async def with_await(request: Request, workflow_id: str | None, action: str) -> str | None:
        asked.append((request.headers["x-user"], workflow_id, action))
        return "ada" if request.headers["x-user"] == "ada" else None

    def refuses(request: Request, workflow_id: str | None, action: str) -> bool:
        raise HTTPException(401, "who are you?")

    app = create_app(engine, streams=["tokens"], authorize=with_await)
    assert await status(app, path, {"x-user": "ada"}, client="10.0.0.1") == 200
    assert await status(app, path, {"x-user": "eve"}) == 403
    assert asked == [("ada", "w", "read"), ("eve", "w", "read")]
    for answer, expected in [(True, 200), ("", 403), (False, 403), (None, 403)]:
        app = create_app(engine, streams=["tokens"], authorize=lambda *_, answer=answer: answer)
        assert await status(app, path) == expected
    assert await status(create_app(engine, streams=["tokens"], authorize=refuses), path) == 401

    def forgets(*_: Any) -> Any:
        return {"user": "ada"}

    with pytest.raises(TypeError, match="dict"):
        await status(create_app(engine, streams=["tokens"], authorize=forgets), path)


async def test_nothing_is_looked_up_for_a_stranger(engine: Engine) -> None:
    """A stranger cannot tell which workflows and streams there are."""
    await engine.start_async(talk.options(workflow_id="w"), 1)
    app = create_app(engine, streams=["tokens"], authorize=lambda *_: False)
    assert {await status(app, f"/workflows/{one}") for one in ("w/streams/tokens", "w/streams/x", "v/streams/x")} == {
        403
    }


async def test_a_token_permits_to_read_one_stream(engine: Engine, path: str) -> None:
    app = create_app(engine, streams=["tokens", "other"], tokens=TOKENS, authorize=lambda *_: False)
    token = TOKENS.sign("w", "tokens")
    remote = {"host": "api.example.com", "origin": "https://anywhere.example"}
    assert await status(app, f"{path}?token={token}", remote, client="10.0.0.1") == 200
    assert await status(app, path, {"authorization": f"Bearer {token}"}) == 200
    assert await status(app, path) == 403
    assert await status(app, f"/workflows/w/streams/other?token={token}") == 403
    assert await status(app, f"{stream_of('v')}?token={token}") == 403
    assert await status(app, f"{path}?token={TOKENS.sign('w')}") == 200  # each stream of the workflow


async def test_a_token_that_is_not_ours_permits_nothing(engine: Engine, path: str) -> None:
    app = create_app(engine, streams=["tokens"], tokens=TOKENS, authorize=lambda *_: False)
    good = {"aud": "dbosflow:read", "sub": "w", "exp": time.time() + 60}
    for token in (
        "x",
        "",
        ReadTokens(b"another secret of at least 32 bytes").sign("w"),
        jwt.encode(good, "", "none"),
        jwt.encode({**good, "exp": time.time() - 1}, SECRET, "HS256"),
        jwt.encode({**good, "aud": "other"}, SECRET, "HS256"),
        jwt.encode({name: value for name, value in good.items() if name != "exp"}, SECRET, "HS256"),
        TOKENS.sign("w")[:-2] + "xx",
    ):
        assert await status(app, f"{path}?token={token}") == 401, token
    assert await status(app, f"{path}?token={jwt.encode(good, SECRET, 'HS256')}") == 200
    # A bearer token that is not one of ours is the hook's business.
    assert await status(app, path, {"authorization": f"Bearer {jwt.encode(good, 'x' * 32, 'HS256')}"}) == 403


async def test_a_secret_can_be_replaced(engine: Engine, path: str) -> None:
    fresh = b"a newer secret of at least 32 bytes"
    app = create_app(engine, streams=["tokens"], tokens=ReadTokens(fresh, SECRET))
    assert await status(app, f"{path}?token={TOKENS.sign('w')}", client="10.0.0.1") == 200
    assert await status(app, f"{path}?token={ReadTokens(fresh).sign('w')}", client="10.0.0.1") == 200
    assert SECRET.decode() not in repr(ReadTokens(SECRET))
    for secrets in ((), (b"short",)):
        with pytest.raises(ConfigurationError, match="32 random bytes"):
            ReadTokens(*secrets)


async def test_an_answer_ends_when_its_token_does(engine: Engine) -> None:
    """The clock of the test stands just before that."""
    handle = await engine.start_async(pause_in_the_middle, 1)
    app = create_app(engine, streams=["tokens"], tokens=TOKENS)
    token = TOKENS.sign(handle.workflow_id, expires_in=3600)
    expires_at = time.time() + 3600
    with patch("dbosflow.http.responses.time.time", lambda: expires_at):
        answer = Connection(app, f"{stream_of(handle.workflow_id)}?token={token}")
        events = await answer.whole()
    assert answer.ended
    assert all(event.event != "complete" for event in events)


async def test_a_poll_ends_when_its_token_does(engine: Engine) -> None:
    handle = await engine.start_async(pause_in_the_middle, 1)
    app = create_app(engine, streams=["tokens"], tokens=TOKENS)
    path = f"{stream_of(handle.workflow_id)}?format=json&token={TOKENS.sign(handle.workflow_id, expires_in=3600)}"
    await Connection(app, stream_of(handle.workflow_id)).until("chunk")
    expires_at = time.time() + 3600
    with patch("dbosflow.http.access.time.time", lambda: expires_at), patch("dbosflow.http.long_poll._PATIENCE", 60.0):
        answer = Connection(app, f"{path}&from=1")
        await answer.whole()
    assert b'"events":[]' in answer.body


async def test_pages_of_permitted_sites_may_read(engine: Engine, path: str) -> None:
    app = create_app(engine, streams=["tokens"], authorize=lambda *_: True, origins=["https://app.example.com"])
    answer = Connection(app, path, {"origin": "https://app.example.com"})
    await answer.whole()
    assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
    asked = {"access-control-request-method": "GET", "access-control-request-headers": "last-event-id"}
    for origin, expected in [("https://app.example.com", 200), ("https://attacker.example", 400)]:
        preflight = Connection(app, path, {"origin": origin, **asked}, "OPTIONS")
        await preflight.whole()
        assert preflight.status == expected
    other = Connection(app, path, {"origin": "https://attacker.example"})
    await other.whole()
    assert "access-control-allow-origin" not in other.headers
    everyone = Connection(create_app(engine, streams=["tokens"], authorize=lambda *_: True, origins=["*"]), path, asked)
    await everyone.whole()
    assert "access-control-allow-credentials" not in everyone.headers


async def test_what_is_too_large_is_refused(engine: Engine, path: str) -> None:
    app = create_app(engine, streams=["tokens"], limits=Limits(body_bytes=10, header_bytes=1000))
    assert await status(app, path, {"content-length": "11"}) == 413
    assert await status(app, path, {"content-length": "-1"}) == 413
    assert await status(app, path, {"x": "y" * 1000}) == 431
    assert await status(app, f"{path}?x={'y' * 1000}") == 431
    assert await status(app, path) == 200
    with pytest.raises(ConfigurationError):
        Limits(body_bytes=0)


async def test_there_is_a_limit_of_answers_that_go_on(engine: Engine) -> None:
    handle = await engine.start_async(pause_in_the_middle, 1)
    app = create_app(engine, streams=["tokens"], limits=Limits(answers=1))
    path = stream_of(handle.workflow_id)
    async with Connection(app, path) as first:
        await first.until("chunk")
        second = Connection(app, path)
        await second.whole()
        assert (second.status, second.headers["retry-after"]) == (503, "1")
    async with Connection(app, path) as third:
        await third.until("chunk")


async def test_an_error_of_ours_shows_nothing(engine: Engine, path: str) -> None:

    def leaks(request: Request, workflow_id: str | None, action: str) -> bool:
        raise KeyError("password=secret")

    app = create_app(engine, streams=["tokens"], authorize=leaks)
    answer = Connection(app, path)
    with pytest.raises(KeyError):  # for the server's log
        await answer.whole()
    assert answer.status == 500
    assert b"secret" not in answer.body
