"""The Durable Streams protocol on streams that belong to no workflow. The public suite is in ``tests/conformance``."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest

from dbosflow import Engine, workflow
from dbosflow._store import standalone
from dbosflow.errors import ConfigurationError, PermissionDeniedError
from dbosflow.http import DurableStreams, Limits, create_app
from tests.http.connection import Connection
from tests.support import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TEXT = {"Content-Type": "text/plain"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def streams(engine: Engine) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the streams of an application on this machine."""
    app = create_app(engine, durable_streams=DurableStreams(patience=5.0))
    base = "http://localhost/v1/stream/"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base) as client:
        yield client


def by(producer: str, epoch: int, seq: int) -> dict[str, str]:
    return TEXT | {"Producer-Id": producer, "Producer-Epoch": str(epoch), "Producer-Seq": str(seq)}


def offset(answer: httpx.Response) -> str:
    return answer.headers["stream-next-offset"]


def rows(url: str, table: str) -> int:
    with psycopg.connect(url) as connection:
        found = connection.execute(f"SELECT count(*) FROM dbosflow.{table}").fetchone()
    assert found is not None
    return int(found[0])


async def test_what_is_appended_is_read_in_order_and_from_every_offset(streams: httpx.AsyncClient) -> None:
    made = await streams.put("a", headers=TEXT, content=b"one ")
    assert (made.status_code, made.headers["location"]) == (201, "http://localhost/v1/stream/a")
    places = [offset(made)]
    parts = (b"two ", "dréi 🙂".encode(), b"\xe2\x82", b"\xac")
    places += [offset(await streams.post("a", headers=TEXT, content=part)) for part in parts]
    assert places == sorted(set(places))
    whole = await streams.get("a")
    assert whole.content == "one two dréi 🙂€".encode()
    assert (offset(whole), whole.headers["stream-up-to-date"]) == (places[-1], "true")
    assert (await streams.get("a", params={"offset": places[0]})).content == "two dréi 🙂€".encode()
    assert (await streams.get("a", params={"offset": places[-1]})).content == b""


async def test_json_values_keep_their_text(streams: httpx.AsyncClient) -> None:
    """Numbers are not rounded, and no character is changed, whatever the database's encoding is."""
    await streams.put("j", headers=JSON)
    body = '[1e400, 12345678901234567890, "é\\u0000", {"a": [1.0, -0]}, [2]]'
    assert (await streams.post("j", headers=JSON, content=body.encode())).status_code == 204
    await streams.post("j", headers=JSON, content=b' {"b" : null} ')
    read = await streams.get("j")
    assert read.text == '[1e400,12345678901234567890,"\\u00e9\\u0000",{"a": [1.0, -0]},[2],{"b" : null}]'
    for wrong in (b"{", b"[]", b"NaN", b"[1,]", b"\xff", b"[" * 100_000):
        assert (await streams.post("j", headers=JSON, content=wrong)).status_code == 400
    assert (await streams.get("j")).text == read.text


async def test_an_entity_tag_stands_for_the_content(streams: httpx.AsyncClient) -> None:
    """Also where a stream was removed and made anew at the same path, with as many messages."""
    await streams.put("t", headers=TEXT, content=b"one")
    tag = (await streams.get("t")).headers["etag"]
    same = await streams.get("t", headers={"If-None-Match": f'"other", {tag}'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    await streams.delete("t")
    await streams.put("t", headers=TEXT, content=b"two")
    assert (await streams.get("t", headers={"If-None-Match": tag})).content == b"two"


async def test_an_append_is_durable_once_however_often_it_is_sent(streams: httpx.AsyncClient) -> None:
    await streams.put("p", headers=TEXT)
    sent = [streams.post("p", headers=by("x", 0, 0), content=b"once") for _ in range(8)]
    statuses = sorted([answer.status_code for answer in await asyncio.gather(*sent)])
    assert statuses == [200] + [204] * 7
    assert (await streams.get("p")).content == b"once"


async def test_a_producer_is_fenced_by_its_later_epoch(streams: httpx.AsyncClient) -> None:
    await streams.put("f", headers=TEXT)
    for epoch, seq, status in (
        (0, 0, 200),
        (0, 2, 409),
        (0, 1, 200),
        (2, 1, 400),
        (2, 0, 200),
        (0, 2, 403),
        (2, 0, 204),
    ):
        answer = await streams.post("f", headers=by("x", epoch, seq), content=f"{epoch}.{seq} ".encode())
        assert answer.status_code == status, (epoch, seq)
        if status == 409:
            assert (answer.headers["producer-expected-seq"], answer.headers["producer-received-seq"]) == ("1", "2")
        if status == 403:
            assert answer.headers["producer-epoch"] == "2"
    assert (await streams.get("f")).content == b"0.0 0.1 2.0 "


async def test_what_was_appended_before_the_end_is_a_duplicate_after_it(streams: httpx.AsyncClient) -> None:
    """A client that has sent several requests at a time repeats them all, and gets the same answers."""
    await streams.put("e", headers=TEXT)
    await streams.post("e", headers=by("x", 0, 0), content=b"a")
    last = by("x", 0, 1) | {"Stream-Closed": "true"}
    assert (await streams.post("e", headers=last, content=b"b")).status_code == 200
    for headers in (by("x", 0, 0), last):
        again = await streams.post("e", headers=headers, content=b"b")
        assert (again.status_code, again.headers["stream-closed"]) == (204, "true")
    for headers in (by("x", 0, 2), by("y", 0, 0), TEXT):
        assert (await streams.post("e", headers=headers, content=b"c")).status_code == 409
    read = await streams.get("e", params={"offset": "-1"})
    assert (read.content, read.headers["stream-closed"]) == (b"ab", "true")


async def test_an_append_whose_commit_was_lost_is_found_again(
    streams: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a producer, too: the server itself repeats the transaction when its connection breaks."""
    await streams.put("l", headers=TEXT)
    append, broken = standalone.append, [psycopg.OperationalError("the answer of the commit was lost")]

    async def losing(connection: Any, schema: str, path: str, what: standalone.Append) -> Any:
        result = await append(connection, schema, path, what)
        if broken:
            raise broken.pop()
        return result

    monkeypatch.setattr(standalone, "append", losing)
    answer = await streams.post("l", headers=TEXT, content=b"once")
    assert not broken
    assert answer.status_code == 204
    assert offset(answer) == offset(await streams.head("l"))
    assert (await streams.get("l")).content == b"once"


async def test_sequences_of_a_writer_only_grow_in_the_order_of_their_bytes(streams: httpx.AsyncClient) -> None:
    await streams.put("s", headers=TEXT)
    for seq, status in (
        ("09", 204),
        ("10", 204),
        ("10", 409),
        ("2", 204),
        ("10", 409),
        ("B", 204),
        ("a", 204),
        ("B", 409),
    ):
        answer = await streams.post("s", headers=TEXT | {"Stream-Seq": seq}, content=b".")
        assert answer.status_code == status, seq


async def test_a_long_poll_gets_what_is_appended_meanwhile(streams: httpx.AsyncClient) -> None:
    await streams.put("w", headers=TEXT)
    waiting = asyncio.create_task(streams.get("w", params={"offset": "now", "live": "long-poll"}))
    while not waiting.done():
        await streams.post("w", headers=TEXT, content=b"x")
    answer = await waiting
    assert answer.status_code == 200
    assert set(answer.text) == {"x"}
    assert answer.headers["stream-cursor"]


async def test_events_tell_where_the_reader_stands(streams: httpx.AsyncClient) -> None:
    """Data cannot be mistaken for events, a leading space stays, and the last event says that the stream is closed."""
    body = b" first\r\n\r\nevent: control\rdata: {}\n\n"
    made = await streams.put("v", headers=TEXT | {"Stream-Closed": "true"}, content=body)
    answer = await streams.get("v", params={"offset": "-1", "live": "sse"})
    assert answer.headers["content-type"] == "text/event-stream"
    data, control = answer.text.strip("\n").split("\n\n")
    assert data.splitlines() == [
        "event: data",
        *("data:  first", "data:", "data:event: control", "data:data: {}"),
        *["data:"] * 2,
    ]
    assert json.loads(control.partition("data:")[2]) == {"streamNextOffset": offset(made), "streamClosed": True}
    assert json.loads(control.partition("data:")[2])["streamNextOffset"] == offset(await streams.get("v"))


async def test_a_quiet_stream_of_events_gives_signs_of_life(engine: Engine) -> None:
    """As often as the application says: several within the life of an answer."""
    app = create_app(engine, durable_streams=DurableStreams(lifetime=2.0), heartbeat=0.01)
    made = Connection(app, "/v1/stream/quiet", TEXT, method="PUT")
    await made.whole()
    async with Connection(app, "/v1/stream/quiet?offset=-1&live=sse") as events:
        while events.body.count(b": nothing new\n\n") < 3:
            await events.news()


async def test_a_fork_is_a_copy_that_goes_its_own_way(streams: httpx.AsyncClient) -> None:
    first = offset(await streams.put("src", headers=TEXT, content=b"one "))
    await streams.post("src", headers=TEXT, content=b"two ")
    part = {"Stream-Forked-From": "/v1/stream/src", "Stream-Fork-Offset": first, "Stream-Fork-Sub-Offset": "2"}
    assert (await streams.put("fork", headers=part)).status_code == 201
    assert (await streams.put("fork", headers=part)).status_code == 200
    assert (await streams.put("fork", headers=part | {"Stream-Fork-Sub-Offset": "1"})).status_code == 409
    await streams.post("fork", headers=TEXT, content=b"!")
    await streams.post("src", headers=TEXT, content=b"three")
    assert (await streams.get("fork")).content == b"one tw!"
    assert (await streams.delete("src")).status_code == 204
    assert (await streams.get("fork")).content == b"one tw!"
    assert [(await streams.request(method, "src")).status_code for method in ("GET", "DELETE", "PUT")] == [
        410,
        410,
        409,
    ]


async def test_nothing_is_left_of_streams_whose_last_forks_go_at_the_same_time(
    streams: httpx.AsyncClient, database_url: str
) -> None:
    for _ in range(10):
        await streams.put("src", headers=TEXT, content=b"one")
        forks = [f"fork{number}" for number in range(4)]
        for fork in forks:
            await streams.put(fork, headers={"Stream-Forked-From": "/v1/stream/src"})
        await asyncio.gather(*map(streams.delete, ["src", *forks]))
        left = [rows(database_url, table) for table in ("standalone_stream", "standalone_producer", "stream_block")]
        assert left == [0, 0, 0]


async def test_of_the_last_two_forks_the_second_one_sees_that_the_first_has_gone(
    streams: httpx.AsyncClient, database_url: str
) -> None:
    """Each waits for the row of the stream above, after the removal of its own: so neither leaves it behind."""
    await streams.put("src", headers=TEXT)
    for fork in ("fork1", "fork2"):
        await streams.put(fork, headers={"Stream-Forked-From": "/v1/stream/src"})
    await streams.delete("src")
    with psycopg.connect(database_url, autocommit=True) as other, psycopg.connect(database_url) as holder:
        holder.execute("SELECT FROM dbosflow.standalone_stream WHERE path = 'src' FOR UPDATE")
        deletes = asyncio.gather(streams.delete("fork1"), streams.delete("fork2"))

        def both_wait() -> bool:
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            return other.execute(waiting).fetchone() == (2,)

        await eventually_async(both_wait)
        holder.rollback()
        await deletes
    assert rows(database_url, "standalone_stream") == 0


async def test_what_the_database_refuses_is_refused(
    streams: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value that is nested more deeply than Postgres reads, for one."""

    async def refusing(*_: Any) -> Any:
        raise psycopg.errors.StatementTooComplex("stack depth limit exceeded")

    await streams.put("n", headers=JSON)
    monkeypatch.setattr(standalone, "append", refusing)
    answer = await streams.post("n", headers=JSON, content=b"1")
    assert (answer.status_code, "stack" in answer.text) == (400, False)


async def test_a_server_whose_role_may_remove_nothing_still_creates(
    streams: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has expired stays for a server that may."""

    async def denied(*_: Any, **__: Any) -> Any:
        raise PermissionDeniedError("permission denied for table stream_block")

    await streams.put("old", headers=TEXT | {"Stream-Expires-At": "2020-01-01T00:00:00Z"})
    monkeypatch.setattr(standalone, "delete", denied)
    assert (await streams.put("new", headers=TEXT)).status_code == 201
    assert (await streams.delete("new")).status_code == 403


async def test_an_expired_stream_is_gone_and_a_creation_removes_its_rows(
    streams: httpx.AsyncClient, database_url: str
) -> None:
    await streams.put("old", headers=TEXT | {"Stream-Expires-At": "2020-01-01T00:00:00Z"}, content=b"x")
    await streams.put("ttl", headers=TEXT | {"Stream-TTL": "1000"}, content=b"x")
    assert [(await streams.request(method, "old")).status_code for method in ("GET", "HEAD", "DELETE")] == [404] * 3
    assert (await streams.post("old", headers=TEXT, content=b"y")).status_code == 404
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "UPDATE dbosflow.standalone_stream SET expires_at = now() + interval '10 s' WHERE path = 'ttl'"
        )
    assert (await streams.head("ttl")).headers["stream-ttl"] == "1000"
    await streams.get("ttl")  # an access
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE dbosflow.standalone_stream SET expires_at = expires_at - interval '900 s'")
    assert (await streams.get("ttl")).content == b"x"
    await streams.put("new", headers=TEXT)
    assert rows(database_url, "standalone_stream") == 2


async def test_expired_streams_are_removed_by_workers(
    database_url: str, streams: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nobody makes another stream; what has not expired stays, and so does the name of one with forks."""
    monkeypatch.setattr("dbosflow._runtime.streams.expirer.EVERY", 0.01)
    await streams.put("parent", headers=TEXT | {"Stream-TTL": "1000"}, content=b"x")
    await streams.put("fork", headers={"Stream-Forked-From": "/v1/stream/parent"} | {"Stream-TTL": "2000"})
    await streams.put("lone", headers=TEXT | {"Stream-TTL": "1000"}, content=b"y")
    await streams.put("stays", headers=TEXT, content=b"z")
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE dbosflow.standalone_stream SET expires_at = now() WHERE ttl = 1000")
    async with Engine(database_url):
        await eventually_async(lambda: rows(database_url, "stream_block") == 2)
    assert rows(database_url, "standalone_stream") == 3
    assert [(await streams.get(path)).text for path in ("fork", "stays")] == ["x", "z"]
    assert [(await streams.get(path)).status_code for path in ("parent", "lone")] == [410, 404]


async def test_paths_and_ids_are_kept_apart(engine: Engine, streams: httpx.AsyncClient, database_url: str) -> None:
    """No workflow can have the id of such a stream, so no statement about workflows meets its frames."""

    @workflow
    def nothing() -> None:
        pass

    await streams.put("a%2Fb/c", headers=TEXT, content=b"x")
    assert (await streams.get("a/b/c")).content == b"x"
    with psycopg.connect(database_url) as connection:
        ((stream_id,),) = connection.execute("SELECT id FROM dbosflow.standalone_stream").fetchall()
    with pytest.raises(ConfigurationError, match="must not begin with"):
        nothing.options(workflow_id=stream_id)
    assert (await streams.put("x" * 513, headers=TEXT)).status_code == 400
    assert await engine.workflows.delete_async([stream_id])
    assert (await streams.get("a/b/c")).content == b"x"


@pytest.mark.parametrize("setting", [{"prefix": "v1"}, {"workflows": "/x/"}, {"patience": -1}])
def test_settings_are_checked(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        DurableStreams(**setting)


async def test_a_body_above_the_limit_is_refused(engine: Engine) -> None:
    app = create_app(engine, durable_streams=DurableStreams(), limits=Limits(body_bytes=10))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost/v1/stream/") as client:
        assert (await client.put("a", headers=TEXT, content=b"x" * 11)).status_code == 413
        assert (await client.get("a")).status_code == 404


async def test_nothing_is_done_without_permission(engine: Engine) -> None:
    asked: list[str] = []

    def authorize(request: Any, workflow_id: str | None, action: str) -> bool:
        asked.append(action)
        return False

    app = create_app(engine, streams=["s"], authorize=authorize, durable_streams=DurableStreams())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost/v1/") as client:
        for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
            assert (await client.request(method, "stream/a")).status_code == 403
        assert (await client.post("stream/a", headers={"Stream-Closed": "true"})).status_code == 403
        assert (await client.get("workflows/w/streams/s")).status_code == 403
    assert asked == ["read", "read", "create", "append", "delete", "close", "read"]


async def test_a_fork_is_asked_for_as_a_read_of_its_source(engine: Engine) -> None:
    """So a caller who may write below one path copies nothing of another one."""
    asked: list[tuple[str, str, str]] = []

    def authorize(request: Any, workflow_id: str | None, action: str) -> bool:
        asked.append((action, request.path_params["path"], request.url.path))
        return bool(request.headers["x-user"] == request.path_params["path"].partition("/")[0])

    app = create_app(engine, authorize=authorize, durable_streams=DurableStreams())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost/v1/stream/") as client:
        await client.put("bob/secret", headers=TEXT | {"x-user": "bob"}, content=b"secret")
        fork = {"x-user": "ann", "Stream-Forked-From": "/v1/stream/bob/secret"}
        assert (await client.put("ann/x", headers=fork)).status_code == 403
        assert asked[-1] == ("read", "bob/secret", "/v1/stream/bob/secret")
        assert (await client.get("ann/x", headers={"x-user": "ann"})).status_code == 404
        await client.put("ann/own", headers=TEXT | {"x-user": "ann"}, content=b"own")
        own = {"x-user": "ann", "Stream-Forked-From": "/v1/stream/ann/own"}
        assert (await client.put("ann/x", headers=own)).status_code == 201
        assert (await client.get("ann/x", headers={"x-user": "ann"})).content == b"own"


@pytest.mark.parametrize("query", ["", "?offset=-1", "?offset=-1&live=sse", "?offset=-1&live=long-poll"])
async def test_a_stream_of_html_is_no_page_of_this_site(streams: httpx.AsyncClient, query: str) -> None:
    """A browser that opens it runs nothing, and gives it no origin."""
    closed = {"Content-Type": "text/html", "Stream-Closed": "true"}
    await streams.put("h", headers=closed, content=b"<script>alert(document.domain)</script>")
    for answer in (await streams.get(f"h{query}"), await streams.head("h"), await streams.get("nothing")):
        assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"


async def test_a_client_that_takes_nothing_is_let_go(engine: Engine) -> None:
    app = create_app(engine, durable_streams=DurableStreams(), limits=Limits(send_timeout=0.1))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost/v1/stream/") as client:
        await client.put("slow", headers=TEXT, content=b"x")
        answer = Connection(app, "/v1/stream/slow?offset=-1&live=sse")
        answer.takes = 1
        await answer.news()
        await client.post("slow", headers=TEXT, content=b"y")
        await answer.whole()
    assert (answer.status, answer.ended, app.context.drain.count) == (200, False, 0)
