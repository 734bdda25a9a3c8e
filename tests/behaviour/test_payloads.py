"""P10: payloads are JSON that people can read in psql; nothing in them names code, and no bad one breaks a listing."""

from __future__ import annotations

import json
import sys
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest
from pydantic import BaseModel

from dbosflow import Engine, WorkflowStatus, step, workflow, write_stream_async
from dbosflow.errors import StreamFailedError, WorkflowBlockedError, WorkflowFailedError
from tests.behaviour.tables import rows

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 60.0


class Parcel(BaseModel):
    """A payload with a type of its own."""

    to: str
    sent: datetime


PARCEL = Parcel(to="Zoë", sent=datetime(2024, 5, 1, tzinfo=UTC))
AS_JSON = {"to": "Zoë", "sent": "2024-05-01T00:00:00Z"}


@step
async def packed(parcel: Parcel) -> Parcel:
    return parcel


@workflow
async def shipping(parcel: Parcel, note: str = "careful") -> Parcel:
    await write_stream_async("parcels", parcel)
    return await packed(parcel)


@workflow
async def breaking(what: str) -> None:
    await write_stream_async("parcels", what)
    raise ValueError(what)


def alter(url: str, query: LiteralString, *parameters: object) -> None:
    """Writes into the tables what no engine would."""
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute(query, parameters).rowcount == 1


def test_payloads_are_readable_in_psql(database_url: str, engine: Engine) -> None:
    """Arguments by their names, results, stream values, errors: plain JSON, and no class in sight."""
    engine.run(shipping.options(workflow_id="w"), PARCEL)
    with pytest.raises(ValueError, match="crushed"):
        engine.run(breaking.options(workflow_id="b"), "crushed")
    assert rows(database_url, "SELECT input, output FROM dbosflow.workflow WHERE id = 'w'") == [
        ({"parcel": AS_JSON}, AS_JSON)
    ]
    assert rows(database_url, "SELECT output FROM dbosflow.step") == [(AS_JSON,)]
    assert rows(database_url, "SELECT value FROM dbosflow.stream_value WHERE workflow_id = 'w'") == [(AS_JSON,)]
    assert rows(database_url, "SELECT error->>'type', error->>'message' FROM dbosflow.workflow WHERE id = 'b'") == [
        ("ValueError", "crushed")
    ]
    info = engine.handle("w").info()
    assert (info.input, info.output) == ({"parcel": AS_JSON}, AS_JSON)


def test_an_error_in_the_database_imports_and_calls_nothing(
    database_url: str, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name in a row is looked up among exception classes already imported, and nowhere else."""
    (tmp_path / "a_module_of_an_attacker.py").write_text("class E(Exception): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    touched = tmp_path / "touched"
    names = [
        ("a_module_of_an_attacker", "E", []),
        ("os", "mkdir", [str(touched)]),
        ("os", "system", [f"touch {touched}"]),
        ("pathlib", "Path", [str(touched)]),
        ("subprocess", "Popen", [["touch", str(touched)]]),
        ("builtins", "SystemExit", [1]),
        ("builtins", "eval", [f"open({str(touched)!r}, 'w')"]),
        ("builtins", "", []),
        ("", "E", []),
    ]
    for number, (module, name, args) in enumerate(names):
        workflow_id = f"w{number}"
        with pytest.raises(ValueError, match="x"):
            engine.run(breaking.options(workflow_id=workflow_id), "x")
        error = json.dumps({"type": name, "module": module, "args": args, "message": ""})
        alter(database_url, "UPDATE dbosflow.workflow SET error = %s WHERE id = %s", error, workflow_id)
        with pytest.raises(WorkflowFailedError):
            engine.handle(workflow_id).result(timeout=PATIENCE)
    assert "a_module_of_an_attacker" not in sys.modules
    assert not touched.exists()


BAD: list[str] = [
    '"text"',
    "[]",
    "7",
    "null",
    '{"type": 1}',
    '{"args": {}}',
    '"\\u0000\\ud800"',
    '{"a": 1, "a": 2}',
    "1e999",
]


@pytest.mark.parametrize("payload", BAD)
def test_a_workflow_row_that_cannot_be_read_breaks_no_listing(database_url: str, engine: Engine, payload: str) -> None:
    """Somebody wrote nonsense into one row: it is listed like all others, and asking for it is an error."""
    for workflow_id in ("good", "bad"):
        with pytest.raises(ValueError, match="x"):
            engine.run(breaking.options(workflow_id=workflow_id), "x")
    query: LiteralString = "UPDATE dbosflow.workflow SET error = %s, input = %s, output = %s WHERE id = 'bad'"
    alter(database_url, query, payload, payload, payload)
    alter(
        database_url,
        "UPDATE dbosflow.stream_block SET values = %s WHERE workflow_id = 'bad' AND kind = 'error'",
        payload,
    )
    assert {one.id: one.status for one in engine.list_workflows()} == {
        "good": WorkflowStatus.FAILED,
        "bad": WorkflowStatus.FAILED,
    }
    assert [one.key for one in engine.streams.list("bad")] == ["parcels"]
    handle = engine.handle("bad", breaking)
    assert handle.status() is WorkflowStatus.FAILED
    assert handle.info().id == "bad"
    with pytest.raises(WorkflowFailedError):
        handle.result(timeout=PATIENCE)
    reader: Any = engine.read_stream("bad", "parcels")
    assert next(reader) == "x"
    with pytest.raises(StreamFailedError):
        next(reader)


def test_a_step_row_that_cannot_be_read_is_listed_all_the_same(database_url: str, engine: Engine) -> None:
    """The same for records."""
    engine.run(shipping.options(workflow_id="w"), PARCEL)
    alter(database_url, """UPDATE dbosflow.step SET output = '"\\u0000"', error = '[1e999]'""")
    (one,) = engine.list_steps("w")
    assert (one.key, one.output) == ("packed#0", "\0")


def test_an_input_that_its_workflow_cannot_take_parks_that_workflow(database_url: str, client: Engine) -> None:
    """A queued row that somebody edited, or an older deploy wrote: parked with the reason, and holds up nobody."""
    bad = client.start(shipping.options(queue="q", priority=-1), PARCEL)
    good = client.start(shipping.options(queue="q"), PARCEL)
    alter(database_url, "UPDATE dbosflow.workflow SET input = '[1]' WHERE id = %s", bad.workflow_id)
    with Engine(database_url) as engine:
        serving = threading.Thread(target=engine.run_worker, args=("q",))
        serving.start()
        assert good.result(timeout=PATIENCE) == PARCEL
        with pytest.raises(WorkflowBlockedError, match=r"takes the arguments \(parcel.*records hold \[1\]"):
            bad.result(timeout=PATIENCE)
    serving.join(PATIENCE)
