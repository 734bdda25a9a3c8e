"""Rows that an attacker wrote: read in every way, they import nothing, call nothing, and break no listing.

A role that may write the tables may fake outcomes; that is what writing means. They must not get code run by it.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from dbosflow import Engine, step, workflow
from dbosflow.cli import main
from dbosflow.errors import (
    DbosflowError,
    SerializationError,
    StepFailedError,
    StreamFailedError,
    WorkflowBlockedError,
    WorkflowFailedError,
)
from dbosflow.failures import load_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Execute = Callable[..., list[tuple[Any, ...]]]

CALLED: list[str] = []

NOT_IMPORTED = "antigravity"
LAZY = "hostile_lazy_module"


class Bomb:
    """No exception: nobody may make one."""

    def __init__(self, *args: object) -> None:
        CALLED.append(f"Bomb{args}")


class Reducing:
    """What a pickle would call."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return CALLED.append, ("unpickled",)


PICKLE = base64.b64encode(pickle.dumps(Reducing())).decode()
DEEP = "[" * 5000 + "]" * 5000
LONG_NUMBER = "9" * 5000

RECORDS: dict[str, Any] = {
    "a function": {"type": "system", "module": "os", "args": ["touch CALLED"]},
    "a class with effects": {"type": "Popen", "module": "subprocess", "args": [["touch", "CALLED"]]},
    "a builtin": {"type": "eval", "module": "builtins", "args": ["CALLED.append('eval')"]},
    "by way of another module": {"type": "path.os.system", "module": "os", "args": ["touch CALLED"]},
    "a class of the user's": {"type": "Bomb", "module": __name__, "args": ["boom"]},
    "a module that is not imported": {"type": "Error", "module": NOT_IMPORTED, "args": []},
    "a module that imports when asked": {"type": "Lazy", "module": LAZY, "args": []},
    "the end of the process": {"type": "SystemExit", "module": "builtins", "args": [3]},
    "an interruption": {"type": "KeyboardInterrupt", "module": "builtins", "args": []},
    "a dunder": {"type": "__class__.__subclasses__", "module": "builtins", "args": []},
    "keys of Python's": {"__class__": "os.system", "__reduce__": ["os.system", ["touch CALLED"]], "py/object": "os"},
    "a pickle": {"type": PICKLE, "module": PICKLE, "args": [PICKLE], "message": PICKLE},
    "wrong types": {"type": ["os"], "module": {"a": 1}, "args": {"b": 2}, "message": 5},
    "a list": ["os", "system"],
    "a number": 7,
    "a text": "os.system",
    "null": None,
}
AS_THEY_ARE = {"the end of the process": "SystemExit", "an interruption": "KeyboardInterrupt"}
"""What a step may raise, too: its workflow gets it, and nothing else does."""
LACKING = {"a module that is not imported", "a module that imports when asked", "a dunder", "a pickle", "escapes"}
TEXTS = {name: json.dumps({"message": "boom"} | row if isinstance(row, dict) else row) for name, row in RECORDS.items()}
TEXTS |= {
    "deep": DEEP,
    "deep inside": f'{{"type": {DEEP}, "module": "os", "message": {DEEP}, "args": {DEEP}}}',
    "a long number": LONG_NUMBER,
    "escapes": r'{"type": "\u0000\ud800", "module": "\u0000", "message": "\ud800", "args": ["\u001b[2J"]}',
}


@workflow
def reads_hostile_rows() -> str:
    """What a step's recorded failure becomes."""
    try:
        fails_as_the_row_says()
    except BaseException as error:  # noqa: BLE001 (what the row made of it)
        return type(error).__name__
    return "nothing"


@step
def fails_as_the_row_says() -> None:
    raise OSError


@workflow
def takes_a_number(number: int) -> int:
    return number


@pytest.fixture(autouse=True)
def _nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """During a test nothing was called, and no module came that its rows name."""
    monkeypatch.chdir(tmp_path)
    CALLED.clear()
    lazy = ModuleType(LAZY)

    def asked(name: str) -> NoReturn:
        CALLED.append(f"asked for {name}")
        raise AttributeError(name)

    lazy.__dict__["__getattr__"] = asked
    monkeypatch.setitem(sys.modules, LAZY, lazy)
    assert NOT_IMPORTED not in sys.modules
    yield
    assert CALLED == []
    assert not os.listdir(tmp_path)  # noqa: PTH208
    assert NOT_IMPORTED not in sys.modules


def plant(execute: Execute, text: str, workflow_id: str) -> None:
    """A workflow that failed with ``text``, with a step and a stream that did."""
    execute(
        "INSERT INTO dbosflow.workflow (id, name, status, input, output, error, attributes, keys, ended_at) "
        "VALUES (%s, 'reads_hostile_rows', 'failed', %s, %s, %s, %s, %s, now())",
        workflow_id,
        *[text] * 5,
    )
    execute(
        "INSERT INTO dbosflow.step (workflow_id, key, kind, epoch, seq, turn, output, error, started_at) "
        "VALUES (%s, 'one#0', 'step', 1, 0, 0, %s, %s, now())",
        workflow_id,
        text,
        text,
    )
    execute(
        'INSERT INTO dbosflow.stream_block (workflow_id, key, "offset", count, kind, values, bytes, producer, '
        "producer_seq, epoch) VALUES (%s, 'out', 0, 1, 'values', %s, 1, '', 0, 1), "
        "(%s, 'ended', 0, 1, 'error', %s, 1, '', 0, 1), (%s, 'back', 0, 1, 'rollback', %s, 1, '', 0, 1)",
        *(part for _ in range(3) for part in (workflow_id, text)),
    )


def test_an_error_of_the_database_is_looked_up_and_never_called() -> None:
    """Whatever the row names: no exception but one that is imported already comes of it."""
    before = set(sys.modules)
    for name, text in TEXTS.items():
        error, kind, message, *_ = load_error(text)
        assert type(error).__name__ == AS_THEY_ARE.get(name, "NoneType"), name
        assert isinstance(kind, str)
        assert isinstance(message, str)
    assert set(sys.modules) == before


def test_every_way_of_reading_survives_every_row(engine: Engine, execute: Execute) -> None:
    """Results, records, listings and streams: typed errors where there is no value, and nothing is imported."""
    plant(execute, '"harmless"', "first")
    read_all_of(engine, "first")
    before = set(sys.modules)
    for name, text in TEXTS.items():
        plant(execute, text, name)
        read_all_of(engine, name)
    assert len(engine.list_workflows()) == len(TEXTS) + 1
    assert set(sys.modules) == before


def read_all_of(engine: Engine, workflow_id: str) -> None:
    handle = engine.handle(workflow_id)
    with pytest.raises(WorkflowFailedError):
        handle.result(timeout=60)
    info = handle.info()
    assert info.status == "failed"
    assert info.error is None or isinstance(info.error, WorkflowFailedError)
    assert [one.key for one in engine.list_steps(workflow_id)] == ["one#0"]
    assert [one.key for one in engine.streams.list(workflow_id)] == ["back", "ended", "out"]
    for key in ("out", "ended", "back"):
        with pytest.raises((SerializationError, StreamFailedError)):
            list(engine.read_stream(workflow_id, key, timeout=60))
        with pytest.raises(DbosflowError):
            list(engine.read_stream(workflow_id, key, timeout=60, type=int))


def test_a_hostile_row_holds_up_no_other_reader(engine: Engine, execute: Execute) -> None:
    """Readers of a process share their queries; a row that cannot be read is its own readers' trouble."""
    plant(execute, '"harmless"', "bad")
    execute(
        "INSERT INTO dbosflow.workflow (id, name, status, input, ended_at) "
        "VALUES ('good', 'x', 'succeeded', '{}', now())"
    )
    execute(
        'INSERT INTO dbosflow.stream_block (workflow_id, key, "offset", count, kind, values, bytes, producer, '
        "producer_seq, epoch) VALUES ('good', 'out', 0, 2, 'values', '[1, 2]', 6, '', 0, 1)"
    )
    bad, good = engine.read_stream("bad", "back", timeout=60), engine.read_stream("good", "out", timeout=30)
    with pytest.raises(StreamFailedError):
        list(bad)
    assert good.read_all() == ([1, 2], True)


def test_the_command_line_shows_hostile_rows(
    execute: Execute, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """For people, and as JSON that can be read again."""
    for name, text in TEXTS.items():
        plant(execute, text, name)
    where = ("--database-url", database_url)
    assert main(["workflow", "list", "--limit", "100", *where]) == 0
    capsys.readouterr()
    assert main(["workflow", "list", "--limit", "100", "--json", *where]) == 0
    assert {row["id"] for row in json.loads(capsys.readouterr().out)} == set(TEXTS)
    for name in TEXTS:
        assert main(["workflow", "show", name, *where]) == 0
        assert "\x1b" not in capsys.readouterr().out
        assert main(["workflow", "show", name, "--json", *where]) == 0
        assert json.loads(capsys.readouterr().out)["id"] == name
        assert main(["stream", "tail", name, "ended", "--json", *where]) in {0, 1}
        assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("name", TEXTS)
def test_a_replay_makes_nothing_of_a_hostile_record(engine: Engine, execute: Execute, name: str) -> None:
    """The worker that takes over gets a failed step without its class, like from any record it cannot rebuild.

    Where the row has all but a class that is here, it may be one that this process lacks: then the workflow is parked.
    """
    handle = engine.start(reads_hostile_rows.options(workflow_id="replayed"))
    assert handle.result(timeout=60) == "OSError"
    execute("UPDATE dbosflow.step SET error = %s WHERE workflow_id = 'replayed'", TEXTS[name])
    before = set(sys.modules)
    run_again(execute, "replayed")
    if name in AS_THEY_ARE:
        assert handle.result(timeout=60) == AS_THEY_ARE[name]
    elif name in LACKING:
        with pytest.raises(WorkflowBlockedError, match="no class"):
            handle.result(timeout=60)
    else:
        assert handle.result(timeout=60) == StepFailedError.__name__
    assert set(sys.modules) == before


@pytest.mark.parametrize("name", TEXTS)
def test_hostile_arguments_end_their_workflow_and_no_worker(engine: Engine, execute: Execute, name: str) -> None:
    """They fail against the annotations, and the next workflow runs."""
    execute(
        "INSERT INTO dbosflow.workflow (id, name, status, input) VALUES ('given', 'takes_a_number', 'queued', %s)",
        TEXTS[name],
    )
    with pytest.raises((DbosflowError, TypeError)):
        engine.handle("given").result(timeout=60)
    assert engine.run(takes_a_number, 3) == 3


def run_again(execute: Execute, workflow_id: str) -> None:
    """As if its worker had died before the end."""
    execute(
        "UPDATE dbosflow.workflow SET status = 'queued', output = NULL, ended_at = NULL, epoch = epoch + 1 "
        "WHERE id = %s",
        workflow_id,
    )
