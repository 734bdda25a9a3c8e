"""Tokens: answered once, by whoever has the id, whatever crashes; the secret is checked."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from typing import Any

import pytest

from dbosflow import Engine, create_token, create_token_async, recv_async, set_event, set_event_async, workflow
from dbosflow.errors import (
    AlreadyAnsweredError,
    ConfigurationError,
    MessageTimeoutError,
    NotInWorkflowError,
    RejectedError,
    SerializationError,
    TokenNotFoundError,
    WorkflowEndedError,
    WorkflowNotFoundError,
)
from tests.behaviour.interruption import Interruption
from tests.behaviour.tables import disorder, records, rows
from tests.support import eventually

PATIENCE = 60.0


@workflow(name="tokens.waiting")
async def waiting(seconds: float | None = None) -> Any:
    """Shows its token, and waits for the answer."""
    token = await create_token_async()
    await set_event_async("token", token.id)
    try:
        return await token.wait_async(type=list[int], timeout=seconds)
    except RejectedError as error:
        return f"rejected: {error}"
    except MessageTimeoutError:
        return "late"
    except (SerializationError, LookupError) as error:
        return type(error).__name__


@workflow(name="tokens.waiting_on_thread")
def waiting_on_thread(seconds: float | None = None) -> Any:
    token = create_token()
    set_event("token", token.id)
    try:
        return token.wait(type=list[int], timeout=seconds)
    except RejectedError as error:
        return f"rejected: {error}"
    except MessageTimeoutError:
        return "late"
    except (SerializationError, LookupError) as error:
        return type(error).__name__


both = pytest.mark.parametrize("target", [waiting, waiting_on_thread], ids=["loop", "thread"])


def token_of(engine: Engine, workflow_id: str) -> str:
    """The id that the workflow shows."""
    found: str = engine.get_event(workflow_id, "token", timeout=PATIENCE)
    return found


@both
def test_a_token_is_answered_from_anywhere(engine: Engine, client: Engine, target: Any) -> None:
    handle = engine.start(target.options(workflow_id="w"))
    client.resolve(token_of(engine, "w"), [1, 2])
    assert handle.result(timeout=PATIENCE) == [1, 2]
    assert records(engine.database_url, "w") == [("token#0", "token"), ("answer#0", "answer")]
    assert disorder(engine.database_url) == []


@both
def test_a_token_can_be_rejected_with_a_text_or_an_exception(engine: Engine, target: Any) -> None:
    for error, result in (("no", "rejected: no"), (LookupError("no"), "LookupError")):
        handle = engine.start(target)
        engine.reject(token_of(engine, handle.workflow_id), error)
        assert handle.result(timeout=PATIENCE) == result


def test_nothing_else_rejects_a_token(engine: Engine) -> None:
    handle = engine.start(waiting.options(workflow_id="w"))
    token_id = token_of(engine, "w")
    with pytest.raises(ConfigurationError, match="an exception, or a text that says why, and got 5"):
        engine.reject(token_id, 5)  # type: ignore[arg-type]
    engine.reject(token_id, "no")
    assert handle.result(timeout=PATIENCE) == "rejected: no"


def test_a_token_needs_a_workflow_around_it() -> None:
    """No other call would make one, so none is named."""
    with pytest.raises(NotInWorkflowError, match=r"called in$"):
        create_token()


@both
def test_a_limit_of_the_wait_is_an_outcome(engine: Engine, target: Any) -> None:
    assert engine.run(target.options(workflow_id="w"), 0.05) == "late"
    with pytest.raises(WorkflowEndedError, match=r"has ended \(succeeded\)"):
        engine.resolve(token_of(engine, "w"), [1])


def test_an_answer_of_another_type_is_an_error_of_the_wait(engine: Engine) -> None:
    handle = engine.start(waiting.options(workflow_id="w"))
    engine.resolve(token_of(engine, "w"), "no list")
    assert handle.result(timeout=PATIENCE) == "SerializationError"


# -- once ------------------------------------------------------------------------------------------------------------


def test_the_first_answer_counts_and_the_others_are_told_so(engine: Engine) -> None:
    """Many at a time: one of them is right. With its key it may come again."""

    @workflow(name="tokens.lasting")
    async def lasting() -> Any:
        token = await create_token_async()
        await set_event_async("token", token.id)
        await recv_async()
        first, second = await token.wait_async(), await token.wait_async()
        return [first, second]

    handle = engine.start(lasting.options(workflow_id="w"))
    token_id = token_of(engine, "w")

    async def answer() -> list[BaseException | None]:
        answers = (engine.resolve_async(token_id, number, idempotency_key=f"k{number}") for number in range(20))
        return await asyncio.gather(*answers, return_exceptions=True)

    results = asyncio.run(answer())
    (winner,) = [number for number, result in enumerate(results) if result is None]
    assert sum(isinstance(one, AlreadyAnsweredError) for one in results) == 19
    engine.resolve(token_id, winner, idempotency_key=f"k{winner}")
    with pytest.raises(AlreadyAnsweredError):
        engine.reject(token_id, "too late")
    engine.send("w", "go")
    assert handle.result(timeout=PATIENCE) == [winner, winner]


def test_a_recovered_workflow_has_the_same_token(database_url: str) -> None:
    """Its id is in a mail by then. The answer that came in between is there."""
    interruption = Interruption()

    async def recovering() -> list[Any]:
        token = await create_token_async()
        await set_event_async("token", token.id)
        await interruption.point_async()
        return [token.id, await token.wait_async()]

    with Engine(database_url, grace=0.0) as engine:
        engine.start(workflow(recovering).options(workflow_id="w"))
        token_id = token_of(engine, "w")
        assert interruption.reached()
    with Engine(database_url, executes=False) as client:
        client.resolve(token_id, "meanwhile")
    interruption.let_through()
    with Engine(database_url) as engine:
        assert engine.handle("w").result(timeout=PATIENCE) == [token_id, "meanwhile"]
    assert disorder(database_url) == []


def test_an_answer_wakes_the_workflow_without_a_poll(database_url: str) -> None:
    with Engine(database_url, safety_poll=600.0) as engine, Engine(database_url, executes=False) as client:
        handle = engine.start(waiting.options(workflow_id="w"))
        token_id = token_of(engine, "w")
        threading.Timer(0.1, client.resolve, (token_id, [7])).start()
        assert handle.result(timeout=PATIENCE) == [7]


# -- what is refused -------------------------------------------------------------------------------------------------


def test_the_secret_is_checked_in_the_statement_that_answers(engine: Engine) -> None:
    """A wrong one writes nothing, and takes no place."""
    handle = engine.start(waiting.options(workflow_id="w"))
    token_id = token_of(engine, "w")
    parts = json.loads(base64.urlsafe_b64decode(token_id + "=" * (-len(token_id) % 4)))

    def changed(place: int, text: str) -> str:
        others = [text if number == place else part for number, part in enumerate(parts)]
        return base64.urlsafe_b64encode(json.dumps(others).encode()).decode()

    for place, text, error in (
        (2, "guessed", TokenNotFoundError),
        (1, "token#1", TokenNotFoundError),
        (0, "nobody", WorkflowNotFoundError),
    ):
        with pytest.raises(error):
            engine.resolve(changed(place, text), [1])
    query = "SELECT 1 FROM dbosflow.stream_block WHERE starts_with(key, 'dbosflow/token/')"
    assert rows(engine.database_url, query) == []
    engine.resolve(token_id, [1])
    assert handle.result(timeout=PATIENCE) == [1]


DEEP = base64.urlsafe_b64encode(b"[" * 20_000).decode()


@pytest.mark.parametrize("wrong", ["", "no id", "bm8gaWQ", 5, None, "WzEsMiwzXQ", pytest.param(DEEP, id="deep")])
def test_what_is_no_id_is_refused_at_the_door(engine: Engine, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="is no id of a token"):
        engine.resolve(wrong, 1)


def test_an_error_does_not_show_the_secret_of_a_broken_id(engine: Engine) -> None:
    """It goes to logs, and whoever reads them could mend the id, and answer."""
    text = base64.urlsafe_b64encode(json.dumps(["w", "token#0", "s" * 22]).encode()).decode()
    with pytest.raises(ConfigurationError) as raised:
        engine.resolve(f"{text}x", 1)
    assert text[16:] not in str(raised.value)


def test_a_token_belongs_to_a_workflow(engine: Engine) -> None:
    with pytest.raises(NotInWorkflowError):
        create_token()
    tokens: list[Any] = []

    @workflow(name="tokens.leaking")
    async def leaking() -> None:
        tokens.append(await create_token_async())

    @workflow(name="tokens.taking")
    async def taking() -> None:
        await tokens[0].wait_async()

    engine.run(leaking)
    with pytest.raises(NotInWorkflowError, match="which created the token"):
        engine.run(taking)
    with pytest.raises(NotInWorkflowError):
        tokens[0].wait()


def test_a_limit_goes_on_after_a_crash(database_url: str) -> None:
    with Engine(database_url, grace=0.0) as engine:
        engine.start(waiting.options(workflow_id="w"), 3600)
        eventually(lambda: ("answer#0/until", "until") in records(database_url, "w"))
    rows(database_url, "UPDATE dbosflow.step SET wake_at = now() WHERE kind = 'until' RETURNING 1")
    with Engine(database_url) as engine:
        assert engine.handle("w").result(timeout=PATIENCE) == "late"
