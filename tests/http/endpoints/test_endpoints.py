"""Workflows as endpoints: a request starts one, once for each idempotency key, and is answered with what it gives."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import pytest
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.routing import Mount

from dbosflow import Engine, Stream, continue_as_new, recv_async, workflow
from dbosflow.errors import ConfigurationError, DefinitionError, RequestRefusedError
from dbosflow.http import Endpoint, Guards, Limits, StartCall, create_app, expose
from dbosflow.testing import asgi, run_stream
from tests.http.events import parsed

if TYPE_CHECKING:
    from starlette.requests import Request

    from tests.http.endpoints.conftest import Serve


class Word(BaseModel):
    """A chunk."""

    text: str


class Count(BaseModel):
    """A final."""

    words: int
    note: str = ""


words = Stream[Word, Count]("words")


@workflow(name="endpoints.spell")
async def spell(text: str, times: Annotated[int, Field(ge=1, le=9)] = 1) -> Count:
    """Writes each word of a text."""
    writer = words.writer()
    found = text.split() * times
    for word in found:
        await writer.write_async(Word(text=word))
    return Count(words=len(found))


@workflow(name="endpoints.spell_on_thread")
def spell_on_thread(text: str) -> Count:
    writer = words.writer()
    for word in text.split():
        writer.write(Word(text=word))
    return Count(words=len(text.split()))


@workflow(name="endpoints.closing")
async def closing(text: str) -> Count:
    """Closes its stream itself, with a final of its own."""
    async with words.writer() as writer:
        await writer.write_async(Word(text=text))
        await writer.close_async(Count(words=-1))
    return Count(words=1)


@workflow(name="endpoints.waiting")
async def waiting(text: str) -> Count:
    """Waits for a message between two chunks."""
    writer = words.writer()
    await writer.write_async(Word(text=text))
    await writer.write_async(Word(text=await recv_async("go", type=str)))
    return Count(words=2)


@workflow(name="endpoints.failing")
async def failing() -> Count:
    msg = "a password"
    raise LookupError(msg)


both = pytest.mark.parametrize("target", [spell, spell_on_thread], ids=["loop", "thread"])


@both
async def test_a_request_is_answered_with_the_frames_of_its_workflow(engine: Engine, serve: Serve, target: Any) -> None:
    """The last frame has what the workflow returns; the answer says which workflow it is, and where to read on."""
    path = f"/{target.definition.name}"
    endpoint: Endpoint[..., Any] = expose(target, path, stream=words)
    async with serve(endpoint) as client:
        answer = await client.post(path, json={"text": "a b"})
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        events = [(one.event, one.data) for one in parsed(answer.text) if one.event != "up-to-date"]
        assert events == [
            ("start", {"from": 0, "view": "live"}),
            ("chunk", {"text": "a"}),
            ("chunk", {"text": "b"}),
            ("complete", {"final": {"words": 2, "note": ""}}),
        ]
        started = answer.headers["workflow-id"]
        assert answer.headers["content-location"] == f"{path}/{started}"
        assert (await engine.handle(started).info_async()).name == f"POST {path}"
        again = await client.get(f"{path}/{started}", headers={"Last-Event-ID": "0"})
        assert [one.event for one in parsed(again.text)] == ["start", "chunk", "complete"]
        nothing = await client.get(f"{path}/{started}", headers={"Last-Event-ID": "2"})
        assert (nothing.status_code, nothing.headers["cache-control"]) == (204, "no-store")


@both
async def test_an_aggregating_endpoint_answers_with_the_final(serve: Serve, target: Any) -> None:
    path = f"/{target.definition.name}/counts"
    async with serve(expose(target, path, mode="aggregate")) as client:
        answer = await client.post(path, json={"text": "a b c"})
        assert (answer.status_code, answer.json()) == (200, {"words": 3, "note": ""})
        again = await client.get(answer.headers["content-location"])
        assert again.json() == {"words": 3, "note": ""}


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"{}", ["text"]),
        (b'{"text": 3}', ["text"]),
        (b'{"text": "a", "times": 10}', ["times"]),
        (b'{"text": "a", "other": 1}', ["other"]),
        (b'["a"]', []),
        (b'{"text": NaN}', []),
        (b"{", []),
        (b"\xff", []),
        (b"[" * 100_000, []),
    ],
)
async def test_what_is_not_valid_starts_nothing(engine: Engine, serve: Serve, body: bytes, where: list[str]) -> None:
    """The client gets told where and why, in a problem; what it has sent does not come back."""
    async with serve(expose(spell, "/spellings", stream=words)) as client:
        answer = await client.post("/spellings", content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
        problem = answer.json()
        assert problem["type"] == "urn:problem-type:dbosflow:not-valid"
        assert [one["at"] for one in problem["errors"]] == [where]
        assert await engine.list_workflows_async() == []


async def test_a_body_has_a_limit_and_a_type(engine: Engine, serve: Serve) -> None:
    async with serve(expose(spell, "/spellings", stream=words, body_bytes=50)) as client:
        assert (await client.post("/spellings", json={"text": "a" * 50})).status_code == 413
        assert (await client.post("/spellings", content=b'{"text": "a"}')).status_code == 415
        assert (await client.post("/spellings", data={"text": "a"})).status_code == 415
        assert (await client.get("/spellings")).status_code == 405
        assert await engine.list_workflows_async() == []


async def test_requests_with_one_key_start_one_workflow(engine: Engine, serve: Serve) -> None:
    """All are answered with its frames, also those at the same time; another body under the key is refused."""
    async with serve(expose(spell, "/spellings", stream=words)) as client:

        async def ask(text: str = "a b", key: str = "k") -> Any:
            return await client.post("/spellings", json={"text": text}, headers={"Idempotency-Key": key})

        answers = await asyncio.gather(*(ask() for _ in range(8)))
        assert {answer.headers["workflow-id"] for answer in answers} == {answers[0].headers["workflow-id"]}
        assert all(parsed(answer.text)[-1].data == {"final": {"words": 2, "note": ""}} for answer in answers)
        refused = await ask("a c")
        assert (refused.status_code, refused.json()["type"]) == (422, "urn:problem-type:dbosflow:key-reused")
        other = await ask("a c", key="l")
        assert other.headers["workflow-id"] != answers[0].headers["workflow-id"]
        assert len(await engine.list_workflows_async()) == 2
        bad = await ask(key="k" * 256)
        assert (bad.status_code, bad.json()["type"]) == (400, "urn:problem-type:dbosflow:idempotency-key")


async def test_keys_of_callers_and_of_paths_are_apart(serve: Serve) -> None:
    """A key that somebody else has used, or that was used at another address, is another one."""

    def authorize(request: Request, workflow_id: str | None, action: str) -> str | None:
        return request.headers.get("user")

    @workflow(name="endpoints.room")
    async def room(room: str, text: str) -> str:
        return f"{room}: {text}"

    async with serve(expose(room, "/rooms/{room}/says", mode="aggregate"), authorize=authorize) as client:

        async def say(user: str, room: str) -> Any:
            headers = {"user": user, "Idempotency-Key": "1"}
            return await client.post(f"/rooms/{room}/says", json={"text": "hi"}, headers=headers)

        answers = [await say("ann", "a"), await say("bob", "a"), await say("ann", "b"), await say("ann", "a")]
        assert [answer.json() for answer in answers] == ["a: hi", "a: hi", "b: hi", "a: hi"]
        ids = [answer.headers["workflow-id"] for answer in answers]
        assert len(set(ids)) == 3
        assert ids[0] == ids[3]
        nobody = await client.post("/rooms/a/says", json={"text": "hi"})
        assert nobody.status_code == 403


async def test_guards_before_the_start_refuse_and_enrich(engine: Engine, serve: Serve) -> None:
    """They run in their order, sync and async, and see what those before them have changed."""
    seen: list[tuple[str, dict[str, Any]]] = []

    def limited(call: StartCall) -> dict[str, Any]:
        seen.append((call.caller, dict(call.arguments)))
        if call.request.headers.get("x-spam"):
            msg = "too much"
            raise RequestRefusedError(msg, 429)
        return {"user": "u1"}

    async def upper(call: StartCall) -> dict[str, Any]:
        seen.append((call.caller, dict(call.arguments)))
        return {"text": call.arguments["text"].upper()}

    @workflow(name="endpoints.enriched")
    async def enriched(text: str, user: str) -> str:
        return f"{user}: {text}"

    guards = Guards(before=[limited, upper], sets=["user"])
    async with serve(expose(enriched, "/says", mode="aggregate", guards=guards)) as client:
        assert (await client.post("/says", json={"text": "hi"})).json() == "u1: HI"
        assert seen == [("", {"text": "hi"}), ("", {"text": "hi", "user": "u1"})]
        forged = await client.post("/says", json={"text": "hi", "user": "root"})
        assert (forged.status_code, forged.json()["errors"][0]["at"]) == (422, ["user"])
        spam = await client.post("/says", json={"text": "hi"}, headers={"x-spam": "1"})
        assert (spam.status_code, spam.json()["detail"]) == (429, "too much")
        assert len(await engine.list_workflows_async()) == 1


@pytest.mark.parametrize("target", [spell, spell_on_thread, closing], ids=["loop", "thread", "closes itself"])
async def test_guards_behind_the_body_decide_what_every_reader_gets(engine: Engine, serve: Serve, target: Any) -> None:
    """They are one step, whose outcome is on record: a guard that would give another answer each time gives one."""
    calls: list[int] = []

    async def noted(count: Count) -> Count:
        calls.append(count.words)
        return Count(words=count.words, note=f"call {len(calls)}")

    def stamped(count: Count) -> Count:
        return Count(words=count.words, note=f"{count.note}!")

    path = f"/{target.definition.name}"
    async with serve(expose(target, path, stream=words, guards=Guards(after=[noted, stamped]))) as client:
        first = await client.post(path, json={"text": "a"})
        final = parsed(first.text)[-1].data["final"]
        assert final == {"words": 1, "note": "call 1!"}
        again = await client.get(first.headers["content-location"])
        assert parsed(again.text)[-1].data["final"] == final
        started = first.headers["workflow-id"]
        assert await engine.handle(started).result_async() == final
        assert [step.key for step in await engine.list_steps_async(started)][-1].startswith("after_guards")
        assert calls == [1]


@pytest.mark.parametrize("target", [spell, closing], ids=["left open", "closed"])
async def test_a_guard_behind_the_body_may_refuse(serve: Serve, target: Any) -> None:
    """The workflow fails; its readers get the detail instead of the final, also if the stream was closed before."""

    def moderated(count: Count) -> Count:
        msg = "not fit for print"
        raise RequestRefusedError(msg, 451)

    guards = Guards(after=[moderated])
    path = f"/{target.definition.name}"
    streaming: Endpoint[..., Any] = expose(target, path, stream=words, guards=guards)
    async with serve(streaming, expose(target, f"{path}/counts", mode="aggregate", guards=guards)) as client:
        events = parsed((await client.post(path, json={"text": "a"})).text)
        assert (events[-1].event, events[-1].data) == ("error", {"message": "not fit for print"})
        refused = await client.post(f"{path}/counts", json={"text": "a"})
        assert (refused.status_code, refused.json()["detail"]) == (451, "not fit for print")


async def test_a_failure_leaks_nothing(serve: Serve) -> None:
    """The client learns that the workflow has failed, and no word of its error."""
    streaming = expose(failing, "/failing", stream=words)
    async with serve(streaming, expose(failing, "/failing/finals", mode="aggregate")) as client:
        events = parsed((await client.post("/failing")).text)
        assert events[-1].event == "error"

        def broken(count: Count) -> Count:
            msg = "a password"
            raise LookupError(msg)

        answer = await client.post("/failing/finals")
        assert (answer.status_code, answer.json()["type"]) == (500, "urn:problem-type:dbosflow:workflow-failed")
        assert "password" not in str(events) + answer.text
    closed = expose(closing, "/failing/guards", stream=words, guards=Guards(after=[broken]))
    async with serve(closed) as client:
        events = parsed((await client.post("/failing/guards", json={"text": "a"})).text)
        assert (events[-1].event, events[-1].data) == ("error", {"message": "the workflow failed"})


async def test_a_client_that_cannot_wait_gets_a_place_to_look(engine: Engine, serve: Serve) -> None:
    async with serve(expose(waiting, "/waiting", mode="aggregate")) as client:
        answer = await client.post("/waiting", json={"text": "a"}, headers={"Prefer": "respond-async"})
        assert (answer.status_code, answer.headers["location"]) == (202, f"/waiting/{answer.json()['id']}")
        looked = await client.get(answer.headers["location"], headers={"Prefer": "wait=0"})
        assert looked.status_code == 202
        await engine.send_async(answer.json()["id"], "b", "go")
        found = await client.get(answer.headers["location"])
        assert (found.status_code, found.json()["words"]) == (200, 2)


async def test_a_workflow_is_cancelled_by_delete(engine: Engine, serve: Serve) -> None:
    """Its readers get to know; a second request finds it cancelled; one that has succeeded stays so."""
    async with serve(expose(waiting, "/waiting", stream=words)) as client:
        async with client.stream("POST", "/waiting", json={"text": "a"}) as answer:
            parts = answer.aiter_text()
            text = await anext(parts)
            where = answer.headers["content-location"]
            deleted = await client.delete(where)
            assert deleted.status_code in {200, 202}
            text += "".join([part async for part in parts])
        assert (parsed(text)[-1].event, parsed(text)[-1].data) == ("cancelled", {"reason": "cancelled over HTTP"})
        assert (await client.delete(where)).status_code == 200
    async with serve(expose(spell, "/spellings", stream=words)) as client:
        where = (await client.post("/spellings", json={"text": "a"})).headers["content-location"]
        ended = await client.delete(where)
        assert (ended.status_code, ended.json()["type"]) == (410, "urn:problem-type:dbosflow:workflow-ended")


async def test_only_workflows_of_the_endpoint_are_reachable(engine: Engine, serve: Serve) -> None:
    """Not one of another endpoint, nor one that was started elsewhere, whatever its id."""
    other = expose(spell, "/others", stream=words)
    async with serve(expose(spell, "/spellings", stream=words), other) as client:
        started = (await client.post("/others", json={"text": "a"})).headers["workflow-id"]
        await engine.start_async(spell.options(workflow_id="A" * 32), "a")
        for unknown in (started, "A" * 32, "B" * 32, "w", "%00", "a" * 5000):
            for method in ("GET", "DELETE"):
                answer = await client.request(method, f"/spellings/{unknown}")
                assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
        assert (await client.get(f"/others/{started}")).status_code == 200


async def test_an_endpoint_is_not_public_unless_it_says_so(engine: Engine) -> None:
    """Without ``authorize`` only this machine is answered; a public one answers everybody."""
    closed = expose(spell, "/spellings", stream=words)
    opened = expose(spell, "/open", stream=words, public=True)
    app = create_app(engine, endpoints=[closed, opened])
    transport = httpx.ASGITransport(app, client=("203.0.113.5", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://example.com") as client:
        refused = await client.post("/spellings", json={"text": "a"})
        assert refused.status_code == 403
        assert (await client.get(f"/spellings/{'A' * 32}")).status_code == 403
        assert (await client.delete(f"/spellings/{'A' * 32}")).status_code == 403
        answer = await client.post("/open", json={"text": "a"})
        assert parsed(answer.text)[-1].event == "complete"
        foreign = await client.post("/open", json={"text": "a"}, headers={"Origin": "https://evil.example"})
        assert foreign.status_code == 403


def test_what_cannot_be_exposed_is_refused_where_it_is_declared() -> None:
    class Odd:
        """Has no schema."""

    @workflow(name="endpoints.many")
    async def many(*texts: str) -> None: ...

    @workflow(name="endpoints.odd")
    async def odd(value: Odd) -> None: ...

    for target, error in ((many, "by name"), (odd, "cannot give its arguments")):
        with pytest.raises(DefinitionError, match=error):
            expose(target, "/x", mode="aggregate")
    with pytest.raises(DefinitionError, match="needs stream="):
        expose(spell, "/x")
    with pytest.raises(DefinitionError, match="no parameter 'room'"):
        expose(spell, "/x/{room}", stream=words)
    with pytest.raises(ConfigurationError, match="EventSource repeats it"):
        expose(spell, "/x", stream=words, method="GET")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="gives each workflow its id"):
        expose(spell.options(workflow_id="w"), "/x", stream=words)
    with pytest.raises(ConfigurationError, match="must be like"):
        expose(spell, "x", stream=words)
    expose(spell, "/taken", stream=words)
    with pytest.raises(DefinitionError, match="another workflow or endpoint has the name"):
        expose(waiting, "/taken", stream=words)
    with pytest.raises(DefinitionError, match="one argument"):
        Guards(before=[lambda: None])  # type: ignore[list-item, misc]


async def test_an_application_is_mounted_anywhere(engine: Engine) -> None:
    """The places that its answers name are those of the whole application, and so are they for odd paths."""

    @workflow(name="endpoints.mounted")
    async def mounted(room: str) -> str:
        return room

    app = create_app(engine, endpoints=[expose(mounted, "/rooms/{room}/x", mode="aggregate")])
    whole = Starlette(routes=[Mount("/api", app)])
    transport = httpx.ASGITransport(whole)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.post("/api/rooms/a%20%C3%A9%25/x", headers={"Idempotency-Key": "k"})
        where = answer.headers["content-location"]
        assert where == f"/api/rooms/a%20%C3%A9%25/x/{answer.headers['workflow-id']}"
        assert (await client.get(where)).json() == "a é%"
        direct = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")
        again = await direct.post("/rooms/a%20%C3%A9%25/x", headers={"Idempotency-Key": "k"})
        assert again.headers["workflow-id"] == answer.headers["workflow-id"]
        await direct.aclose()


async def test_a_guard_has_the_body_as_it_was_sent(serve: Serve) -> None:
    """It may check a signature of it."""
    seen: list[bytes] = []

    async def signed(call: StartCall) -> None:
        seen.append(await call.request.body())

    endpoint = expose(waiting, "/signed", mode="aggregate", guards=Guards(before=[signed]))
    async with serve(endpoint) as client:
        headers = {"Content-Type": "application/json", "Prefer": "respond-async"}
        answer = await client.post("/signed", content=b' {"text" : "a"} ', headers=headers)
        assert (answer.status_code, seen) == (202, [b' {"text" : "a"} '])
        head = await client.head(answer.headers["location"])
        assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize("sync", [False, True], ids=["loop", "thread"])
def test_an_endpoint_whose_workflow_continues_as_new_has_one_stream_and_one_final(*, sync: bool) -> None:
    """The guards behind the body run behind its last iteration only."""
    calls: list[str] = []

    async def counting(n: int) -> str:
        await words.writer().write_async(Word(text=str(n)))
        if n:
            continue_as_new(n - 1)
        return "end"

    def counting_on_thread(n: int) -> str:
        words.writer().write(Word(text=str(n)))
        if n:
            continue_as_new(n - 1)
        return "end"

    def noted(final: str) -> Count:
        calls.append(final)
        return Count(words=3)

    target: Any = workflow(name=f"endpoints.counting {sync}")(counting_on_thread if sync else counting)
    guards = Guards(after=[noted])
    endpoint: Endpoint[..., Any] = expose(target, f"/countings/{sync}", stream=words, final=Count, guards=guards)
    run = run_stream(endpoint, 2, http=True)
    assert [chunk.text for chunk in run.chunks] == ["2", "1", "0"]
    assert (calls, run.final) == (["end"], Count(words=3))


@workflow(name="endpoints.in_room")
async def in_room(room: str) -> str:
    return room


async def test_an_application_below_a_path_with_parameters(engine: Engine) -> None:
    """Those are not the endpoint's; the same key below another place starts another workflow."""
    app = create_app(engine, endpoints=[expose(in_room, "/mounted/{room}", mode="aggregate")])
    outer = Starlette(routes=[Mount("/t/{tenant:uuid}", app)])
    ids = set()
    for tenant in (1, 1, 2):
        path = f"/t/00000000-0000-0000-0000-00000000000{tenant}/mounted/a"
        answer = await asgi.request(outer, "POST", path, {"Idempotency-Key": "k"}, b"")
        assert (answer.status, answer.body) == (200, b'"a"')
        ids.add(answer.headers["workflow-id"])
    assert len(ids) == 2


async def test_the_place_to_look_is_encoded_once(engine: Engine) -> None:
    app = create_app(engine, endpoints=[expose(in_room, "/encoded/{room}", mode="aggregate")])
    answer = await asgi.request(app, "POST", "/encoded/a%3Fb%23c%20d", {}, b"")
    assert (answer.status, answer.body) == (200, b'"a?b#c d"')
    where = answer.headers["content-location"]
    assert where.startswith("/encoded/a%3Fb%23c%20d/")
    assert (await asgi.request(app, "GET", where, {}, b"")).body == answer.body


async def test_a_name_that_utf8_cannot_carry_is_refused(engine: Engine) -> None:
    app = create_app(engine, endpoints=[expose(in_room, "/named/{room}", mode="aggregate")])
    headers = {"Content-Type": "application/json"}
    answer = await asgi.request(app, "POST", "/named/a", headers, b'{"\\ud800": 1}')
    assert answer.status == 422
    assert json.loads(answer.body)["errors"][0]["at"] == ["\ud800"]


def test_a_body_above_the_applications_limit_is_refused_at_once(database_url: str) -> None:
    engine = Engine(database_url)
    large = expose(in_room, "/large/{room}", mode="aggregate", body_bytes=2**21)
    with pytest.raises(ConfigurationError, match=r"Limits\(body_bytes"):
        create_app(engine, endpoints=[large])
    create_app(engine, endpoints=[large], limits=Limits(body_bytes=2**21))
