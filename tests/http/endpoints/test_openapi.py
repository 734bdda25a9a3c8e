"""The OpenAPI document of endpoints, and a fixed sample of what the fuzzing tier asks."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from dbosflow import Engine, Stream, workflow
from dbosflow.http import create_app, expose, openapi
from dbosflow.testing import asgi
from tests.http_fuzz.program import EXPOSED, document, talking

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT = document.document
BODIES = (
    b"",
    b"{",
    b"null",
    b"[]",
    b"{}",
    b'"\\ud800"',
    b'{"value": "\\ud800\\u0000"}',
    b'{"value": 1e999}',
    b'{"value": 12345678901234567890123456789012345678901234567890}',
    b'{"value": [[[[[[]]]]]], "number": "nan", "text": "\\u0000"}',
    b'{"value": ' + b"[" * 300 + b"]" * 300 + b"}",
    b'{"value": ' + b"9" * 5000 + b"}",
    b"\xff\xfe",
    b"4",
    b'{"reason": "\\ud800"}',
    b'{"order": {"id": "e3e70682-c209-1cac-a29f-6fbed82c07cd", "data": "/w==", "price": "NaN"}}',
    b'{"order": {"id": "e3e70682-c209-1cac-a29f-6fbed82c07cd", "pets": [{"kind": "dog", "called": "Rex"}]}}',
)
HEADERS: tuple[dict[str, str], ...] = (
    {},
    {"content-type": "application/json"},
    {"content-type": "application/json", "idempotency-key": "k", "prefer": "wait=0"},
    {"content-type": "application/x-www-form-urlencoded", "prefer": "wait=0"},
    {"content-type": "application/json", "idempotency-key": "\xe9", "last-event-id": "x", "prefer": "wait=x, \xe9"},
)


def operations() -> Iterator[tuple[str, str]]:
    for path, methods in DOCUMENT["paths"].items():
        for method in methods:
            yield method.upper(), path


async def test_nothing_that_a_client_sends_is_an_error_of_the_server(database_url: str) -> None:
    """Each operation, with each body and each set of headers: the status is one that the document has."""
    async with Engine(database_url, grace=0.0) as engine:
        await engine.start_async(talking.options(workflow_id="talk"))
        token = (await engine.read_stream_async("talk", "tokens").read()).value
        app = create_app(engine, endpoints=[*EXPOSED, document])
        found = set[int]()
        for (method, path), headers in itertools.product(operations(), HEADERS):
            for body in BODIES if method in {"POST", "PUT"} else BODIES[:1]:
                place = path.replace("{workflow_id}", "talk").replace("{token}", token).replace("{offset}", "0")
                answer = await asgi.request(app, method, place.replace("{shop}", "a\x00é/"[:2]), headers, body)
                described = DOCUMENT["paths"][path][method.lower()]["responses"]
                told = (method, path, headers, body[:60], answer.status, answer.body[:200])
                assert answer.status < 500, told
                assert str(answer.status) in described, told
                found.add(answer.status)
        assert {200, 202, 400, 404, 415, 422} <= found


class Chunk(BaseModel):
    """A chunk."""

    text: str


class Final(BaseModel):
    """A final."""

    count: int


parts = Stream[Chunk, Final]("parts")


@workflow(name="openapi.flow")
async def flow(room: str, text: str, times: int = 1) -> Final:
    return Final(count=len(room + text) * times)


def test_the_document_has_the_schemas_of_arguments_chunks_and_finals() -> None:
    found = openapi(expose(flow, "/rooms/{room}/flows", stream=parts), title="Rooms", version="2")
    assert found["info"] == {"title": "Rooms", "version": "2"}
    start = found["paths"]["/rooms/{room}/flows"]["post"]
    body = start["requestBody"]["content"]["application/json"]["schema"]
    assert (list(body["properties"]), body["required"]) == (["text", "times"], ["text"])
    assert body["additionalProperties"] is False
    assert [one["name"] for one in start["parameters"]] == ["room", "Idempotency-Key", "Last-Event-ID"]
    items = start["responses"]["200"]["content"]["text/event-stream"]["itemSchema"]["oneOf"]
    told = {one["properties"]["event"].get("const"): one["properties"]["data"]["contentSchema"] for one in items}
    assert told["chunk"]["properties"] == {"text": {"title": "Text", "type": "string"}}
    assert told["complete"]["properties"]["final"]["properties"]["count"]["type"] == "integer"
    assert sorted(found["paths"]["/rooms/{room}/flows/{workflow_id}"]) == ["delete", "get"]


def test_types_of_one_name_are_told_apart_and_every_reference_leads_somewhere() -> None:
    def other() -> Any:
        class Inner(BaseModel):
            number: int

        class Outer(BaseModel):
            inner: Inner

        return Outer

    class Inner(BaseModel):
        text: str

    class Outer(BaseModel):
        inner: Inner

    first, second = Outer, other()

    @workflow(name="openapi.naming")
    async def naming(one: first, two: second) -> Outer:  # type: ignore[valid-type]
        return Outer(inner=Inner(text=""))

    @workflow(name="openapi.naming_too")
    async def naming_too(one: second) -> Any:  # type: ignore[valid-type]
        return one

    found = openapi(
        expose(naming, "/naming", mode="aggregate"), expose(naming_too, "/naming/too", mode="aggregate"), *EXPOSED
    )
    text = json.dumps(found)
    references = {part.partition('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert references <= found["components"]["schemas"].keys()
    assert "$defs" not in text
    schemas = found["components"]["schemas"]

    def inside(schema: dict[str, Any], *names: str) -> list[str]:
        for name in ("", *names):
            schema = schema["properties"][name] if name else schema
            if "$ref" in schema:
                schema = schemas[schema["$ref"].rpartition("/")[2]]
        return list(schema["properties"])

    naming_start, too = found["paths"]["/naming"]["post"], found["paths"]["/naming/too"]["post"]
    final = naming_start["responses"]["200"]["content"]["application/json"]["schema"]
    assert inside(final, "inner") == ["text"]
    body = naming_start["requestBody"]["content"]["application/json"]["schema"]
    assert (inside(body, "one", "inner"), inside(body, "two", "inner")) == (["text"], ["number"])
    assert inside(too["requestBody"]["content"]["application/json"]["schema"], "one", "inner") == ["number"]


@pytest.mark.parametrize(("status", "path"), [(200, "/openapi.json"), (404, "/openapi")])
async def test_the_document_is_served(database_url: str, status: int, path: str) -> None:
    async with Engine(database_url, executes=False) as engine:
        answer = await asgi.request(create_app(engine, endpoints=[document]), "GET", path, {}, b"")
    assert answer.status == status
    if status == 200:
        assert json.loads(answer.body) == DOCUMENT
