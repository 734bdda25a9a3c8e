"""``run_stream`` of ``dbosflow.testing``: the same frames, chunks, final and error, over HTTP or not."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from dbosflow import Engine, Stream, step, workflow
from dbosflow.errors import ConfigurationError, RequestRefusedError
from dbosflow.http import Guards, StartCall, expose
from dbosflow.testing import RequestFailedError, run_stream, run_stream_async


class Part(BaseModel):
    """A chunk, and a final."""

    text: str


parts = Stream[Part, Part]("parts")


@step(max_attempts=2, interval=0.0)
async def fragile(attempts: list[int]) -> None:
    """Writes, and fails the first time."""
    attempts.append(1)
    writer = parts.writer()
    await writer.write_async(Part(text=f"attempt {len(attempts)}"))
    if len(attempts) == 1:
        msg = "once"
        raise OSError(msg)


@workflow(name="run_stream.flow")
async def flow(text: str) -> Part:
    """Writes a chunk, then one that is taken back, then its repetition."""
    await parts.writer().write_async(Part(text=text))
    await fragile([])
    return Part(text="done")


@workflow(name="run_stream.failing")
async def failing(text: str) -> Part:
    raise LookupError(text)


def named(call: StartCall) -> dict[str, str]:
    """Takes the caller for the text."""
    return {"text": call.caller or call.arguments["text"]}


endpoint = expose(flow, "/flows/{text}", stream=parts, guards=Guards(before=[named]))
counting = expose(flow, "/flows", mode="aggregate")
failing_endpoint = expose(failing, "/run-stream/failing", stream=parts)


@pytest.mark.parametrize("http", [False, True], ids=["direct", "http"])
def test_a_run_has_what_was_streamed(database_url: str, *, http: bool) -> None:
    """Chunks and final have their types; what was rolled back is among the frames, and not among the chunks."""
    with Engine(database_url) as engine:
        run = run_stream(endpoint, "a", engine=engine, http=http)
    assert run.error is None
    assert run.chunks == [Part(text="a"), Part(text="attempt 2")]
    assert run.final == Part(text="done")
    told = [frame.event for frame in run.frames if frame.event not in {"start", "up-to-date"}]
    assert (told[0], told[-1]) == ("chunk", "complete")
    assert run.frames[-1].data == {"final": {"text": "done"}}


def test_a_run_needs_no_engine_and_a_workflow_names_its_stream() -> None:
    run = run_stream(flow, text="a", stream=parts)
    assert (run.chunks[0], run.final) == (Part(text="a"), Part(text="done"))


async def test_guards_run_over_http_only(database_url: str) -> None:
    """Those before the start see the caller."""
    async with Engine(database_url) as engine:
        direct = await run_stream_async(endpoint, "a", engine=engine, caller="ann")
        requested = await run_stream_async(endpoint, "a", engine=engine, http=True, caller="ann")
        final = await run_stream_async(counting, engine=engine, http=True, body={"text": "a"})
    assert [run.chunks[0].text for run in (direct, requested)] == ["a", "ann"]
    assert (final.frames, final.final) == ([], Part(text="done"))


async def test_arguments_in_the_path_arrive_as_they_are(database_url: str) -> None:
    plain = expose(flow, "/plain-flows/{text}", stream=parts)
    async with Engine(database_url) as engine:
        run = await run_stream_async(plain, "a b%2F?#\u00fc", engine=engine, http=True)
        assert run.chunks[0] == Part(text="a b%2F?#\u00fc")
        for wrong in ("a/b", ""):
            with pytest.raises(ConfigurationError, match="cannot stand in the path"):
                await run_stream_async(plain, wrong, engine=engine, http=True)


async def test_errors_are_those_of_the_workflow_and_of_the_request(database_url: str) -> None:
    def refusing(call: StartCall) -> None:
        msg = "no"
        raise RequestRefusedError(msg, 402)

    refused = expose(flow, "/refused", stream=parts, guards=Guards(before=[refusing]))
    async with Engine(database_url) as engine:
        failed = await run_stream_async(failing_endpoint, "a", engine=engine)
        assert isinstance(failed.error, LookupError)
        assert failed.frames[-1].event == "error"
        over_http = await run_stream_async(failing_endpoint, "a", engine=engine, http=True)
        assert isinstance(over_http.error, RequestFailedError)
        assert over_http.error.problem == {"message": "the workflow failed"}
        run = await run_stream_async(refused, "a", engine=engine, http=True)
        assert isinstance(run.error, RequestFailedError)
        assert (run.error.status, run.error.problem["detail"], run.workflow_id) == (402, "no", None)
        invalid = await run_stream_async(refused, engine=engine, http=True, body={"text": 1})
        assert isinstance(invalid.error, RequestFailedError)
        assert invalid.error.status == 422
        with pytest.raises(ConfigurationError, match="needs an endpoint"):
            await run_stream_async(flow, "a", engine=engine, http=True)
        with pytest.raises(TimeoutError):
            await run_stream_async(flow, "a", engine=engine, stream=parts, timeout=0)
