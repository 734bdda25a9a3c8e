"""What is asked for wrongly gets an error that says what to do; nothing is started, lost or left behind by it."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
from pydantic import BaseModel

from dbosflow import Engine, Stream, WorkflowStatus, step, workflow, write_stream_async
from dbosflow.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    SchemaError,
    SerializationError,
    StepFailedError,
    StreamFailedError,
    WorkflowFailedError,
)
from tests.behaviour.tables import disorder, rows
from tests.support import eventually, with_parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 60.0


# -- the database ----------------------------------------------------------------------------------------------------


def opened(url: str, **settings: Any) -> None:
    with Engine(url, **settings):
        pass


def opened_on_a_loop(url: str, **settings: Any) -> None:
    async def main() -> None:
        async with Engine(url, **settings):
            pass

    asyncio.run(main())


@pytest.fixture(params=[opened, opened_on_a_loop], ids=["with", "async with"])
def opening(request: pytest.FixtureRequest) -> Iterator[Callable[..., None]]:
    """Both ways to open an engine; a failure leaves no thread behind."""
    before = {thread.ident for thread in threading.enumerate()}
    yield request.param
    eventually(lambda: {one.ident for one in threading.enumerate() if one.name.startswith("dbosflow")} <= before)


def test_a_database_that_cannot_be_reached_is_named_in_time(opening: Callable[..., None]) -> None:
    """Nobody listens there, or somebody who never answers: both end with the time that the engine was given."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(DatabaseUnavailableError, match=rf"127\.0\.0\.1:{port}, database 'shop'.* within 1 s"):
            opening(f"postgresql://ann@127.0.0.1:{port}/shop?connect_timeout=2", connect_timeout=1.0)
    with pytest.raises(DatabaseUnavailableError, match=rf"127\.0\.0\.1:{port}.* within 1 s.*Is the server running"):
        opening(f"postgresql://ann@127.0.0.1:{port}/shop", connect_timeout=1.0)


def test_a_wrong_database_is_named_at_once(opening: Callable[..., None], database_url: str) -> None:
    """Only a person can mend that, so no time is spent on trying again."""
    with pytest.raises(ConfigurationError, match='"nowhere" does not exist'):
        opening(with_parameters(database_url, dbname="nowhere"), connect_timeout=600.0)


def test_a_schema_that_this_code_cannot_serve_is_refused(opening: Callable[..., None], database_url: str) -> None:
    """It was migrated by a release that declares this one too old."""
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE dbosflow.compatibility SET oldest_code = 7")
    with pytest.raises(SchemaError, match="upgrade dbosflow"):
        opening(database_url)


@pytest.mark.parametrize("grant", ["", "USAGE ON SCHEMA dbosflow", "SELECT ON ALL TABLES IN SCHEMA dbosflow"])
def test_a_role_without_its_rights_is_told_which(opening: Callable[..., None], database_url: str, grant: str) -> None:
    """Also where it may read the schema's version, and no more."""
    role = f"dbosflow_test_{uuid4().hex}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role}".encode())
        try:
            if grant:
                connection.execute(f"GRANT USAGE ON SCHEMA dbosflow TO {role}; GRANT {grant} TO {role}".encode())
            with pytest.raises(SchemaError, match=r"grant this one USAGE on the schema and SELECT, INSERT"):
                opening(with_parameters(database_url, options=f"-c role={role}"))
        finally:
            connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


# -- arguments, results, values --------------------------------------------------------------------------------------


class Row(BaseModel):
    """A model whose field would swallow what is not a number."""

    price: float | None = None


class Rows(BaseModel):
    """Models inside of one."""

    rows: list[Row]


def test_arguments_that_do_not_fit_start_nothing(database_url: str, engine: Engine, client: Engine) -> None:
    """The caller gets the error, whatever it calls: of a start, an enqueue, a child."""

    @workflow
    async def taking(number: int) -> None: ...

    @workflow
    async def starting_child() -> str:
        wrong: Any = "seven"
        for start in (taking.start_async, taking):
            with pytest.raises(SerializationError, match=r"the arguments of workflow .*taking.* type .*number: .*int"):
                await start(wrong)
        return "caught"

    wrong: Any = "seven"
    for starter in (engine, client):
        with pytest.raises(SerializationError, match=r"the arguments of workflow .*taking.* type .*number: .*int"):
            starter.start(taking.options(workflow_id="w"), wrong)
    assert engine.run(starting_child.options(workflow_id="parent")) == "caught"
    assert rows(database_url, "SELECT id, status FROM dbosflow.workflow") == [("parent", "succeeded")]


@pytest.mark.parametrize(
    ("args", "kwargs", "what"),
    [
        ((), {}, "missing a required argument: 'number'"),
        ((1, 2, 3), {"only": 1}, "too many positional arguments"),
        ((1, 2), {}, "missing a required.* argument: 'only'"),
        ((1,), {"only": 1, "other": 1}, "unexpected keyword argument 'other'"),
    ],
)
def test_arguments_of_another_shape_are_refused_as_a_call_does_it(
    engine: Engine, args: tuple[Any, ...], kwargs: dict[str, Any], what: str
) -> None:
    """Of functions that may be called by place alone, and of others."""

    @workflow
    async def mixed(number: int, more: int = 0, *, only: int) -> None: ...

    @workflow
    async def plain(number: int) -> None: ...

    @workflow
    async def none() -> None: ...

    target: Any = mixed
    with pytest.raises(TypeError, match=f"workflow '.*mixed': .*{what}"):
        engine.start(target, *args, **kwargs)
    for flow, wrong in ((plain, ()), (plain, (1, 2)), (none, (1,))):
        target = flow
        with pytest.raises(TypeError):
            engine.start(target, *wrong)
    assert engine.list_workflows() == []


def nested(depth: int, name: str | None = None) -> Any:
    """So many lists in one another, or dictionaries with this name."""
    value: Any = 1
    for _ in range(depth):
        value = [value] if name is None else {name: value}
    return value


FAITHFUL: dict[str, Any] = {
    "NUL": "a\0b",
    "lone surrogate": ["\ud800", "x\udfff"],
    "beyond 64 bits": [2**64, -(2**70), 10**400],
    "the longest integer": 10**4299,
    "float's limits": [5e-324, -1.7976931348623157e308, -0.0],
    "digits in a text": "7" * 5000,
    "NaN in a text": ["NaN", {"Infinity": "null"}, None],
    "10 MB": "ä" * 5_000_000,
}
REFUSED: dict[str, tuple[Any, str]] = {
    "NaN": (math.nan, "NaN"),
    "infinite": ({"a": [1, -math.inf]}, "-Infinity"),
    "a model's infinity, inside": (
        {"rows": [Row(price=1.0), Row(price=math.inf)]},
        "(holds Infinity|a Row would come back as a dict)",
    ),
    "5,000 digits": (10**5000, "more than 4300 digits"),
    "5,000 digits, inside": ({"a": [-(10**5000)]}, "more than 4300 digits"),
    "an object": (object(), "object"),
    "too deep": (nested(300), "depth of more than 199"),
    "far too deep": (nested(100_000), "depth"),
    "just too deep": (nested(200), "depth of more than 199"),
    "dictionaries, too deep": (nested(900, "a"), "depth of more than 199"),
    "lone surrogates, too deep": (nested(300, "\ud800"), "depth of more than 199"),
}


@workflow
async def passing(value: Any) -> Any:
    """Takes, streams, records and returns one value."""
    await write_stream_async("k", value)
    return await passed(value)


@step
async def passed(value: Any) -> Any:
    return value


@pytest.mark.parametrize("which", FAITHFUL)
def test_awkward_json_values_pass_every_place_unchanged(database_url: str, engine: Engine, which: str) -> None:
    """As argument, stream value, step's result and workflow's result; in this process and from the tables."""
    value = FAITHFUL[which]
    assert engine.run(passing.options(workflow_id="w"), value) == value
    with Engine(database_url, executes=False) as other:
        assert other.handle("w").result(timeout=PATIENCE) == value
        assert other.read_stream("w", "k").read_all() == ([value], True)
        assert other.handle("w").info().input == {"value": value}
        assert [one.output for one in other.list_steps("w")] == [value]


@pytest.mark.parametrize("annotation", [Any, Row | int | float | dict[str, Any] | None], ids=["untyped", "typed"])
@pytest.mark.parametrize("which", REFUSED)
def test_values_that_json_cannot_carry_are_refused_in_every_place(engine: Engine, which: str, annotation: Any) -> None:
    """Never written as something else: the error names the place and what was found there."""
    value, found = REFUSED[which]

    async def give() -> Any:
        return value

    async def returning(*, caught: bool) -> Any:
        if not caught:
            return value
        with pytest.raises(SerializationError, match=f"a stream's value .*{found}"):
            await write_stream_async("k", value)
        with pytest.raises(SerializationError, match=f"the result of step 'give' .*{found}"):
            await step(give)()
        return None

    give.__annotations__ = returning.__annotations__ = {"return": annotation}
    flow = workflow(name=f"refused {which} {annotation}")(returning)
    with pytest.raises(SerializationError, match=f"the arguments of workflow 'passing' .*{found}"):
        engine.start(passing, value)
    assert engine.run(flow, caught=True) is None
    handle = engine.start(flow, caught=False)
    with pytest.raises(SerializationError, match=f"the result of workflow .*{found}"):
        handle.result(timeout=PATIENCE)
    assert handle.status() is WorkflowStatus.FAILED


@pytest.mark.parametrize("value", [Row(price=math.nan), Rows(rows=[Row(price=1.0), Row(price=math.inf)])])
def test_a_models_field_that_is_no_number_is_refused_in_every_place(engine: Engine, value: Row | Rows) -> None:
    """As NaN or Infinity wherever its class is said, which an undeclared stream does by its value; else as a model."""
    found = "holds (NaN|Infinity), which JSON does not carry"

    @step
    async def give() -> Row | Rows:
        return value

    @workflow
    async def taking(value: Row | Rows) -> None: ...

    @workflow
    async def flow(*, caught: bool) -> Row | Rows | None:
        if not caught:
            return value
        for write in (write_stream_async("k", value), Stream[Row | Rows, None]("d").writer().write_async(value)):
            with pytest.raises(SerializationError, match=f"value .*{found}"):
                await write
        with pytest.raises(SerializationError, match=f"the result of step .*{found}"):
            await give()
        return None

    with pytest.raises(SerializationError, match=f"the arguments of workflow .*{found}"):
        engine.start(taking, value)
    with pytest.raises(SerializationError, match=r"the arguments of workflow 'passing' .*would come back as a dict"):
        engine.start(passing, value)
    assert engine.run(flow, caught=True) is None
    with pytest.raises(SerializationError, match=f"the result of workflow .*{found}"):
        engine.run(flow, caught=False)


def test_json_that_is_just_not_too_deep_is_read_everywhere(engine: Engine) -> None:
    """Whether they say a type or not, and beside other values."""
    values = [nested(199), 1, nested(199, "a")]

    @workflow
    async def flow(which: int) -> Any:
        for value in values:
            await write_stream_async("k", value)
        return values[which]

    for which, value in enumerate(values):
        handle = engine.start(flow, which)
        assert handle.result(timeout=PATIENCE) == value
        for options in ({}, {"type": Any}, {"type": int | list[Any] | dict[str, Any]}):
            assert engine.read_stream(handle.workflow_id, "k", **options).read_all() == (values, True)
    assert engine.run(passing, nested(197)) == nested(197)
    with pytest.raises(SerializationError, match=r"the arguments of workflow 'passing' .* depth"):
        engine.start(passing, nested(198))


def test_bytes_and_moments_keep_their_types_where_they_are_declared(engine: Engine) -> None:
    """By a stream, or, for a reader that says it, by being the value itself. In an undeclared list they are refused."""
    pairs = Stream[tuple[bytes, datetime], None]("pairs")

    @workflow
    async def typed(raw: bytes, at: datetime) -> tuple[bytes, datetime]:
        await pairs.writer().write_async((raw, at))
        await write_stream_async("raw", raw)
        await write_stream_async("at", at)
        for inside in ([raw], {"at": at}, (raw, at)):
            with pytest.raises(
                SerializationError, match=r"a stream's value .* a (bytes|datetime) would come back as a str"
            ):
                await write_stream_async("k", inside)
        return raw, at

    raw, at = bytes(range(256)), datetime(2024, 2, 29, 1, 2, 3, 456789, tzinfo=UTC)
    handle = engine.start(typed, raw, at)
    assert handle.result(timeout=PATIENCE) == (raw, at)
    for key, kind, value in (("pairs", tuple[bytes, datetime], (raw, at)), ("raw", bytes, raw), ("at", datetime, at)):
        reader: Any = engine.read_stream(handle.workflow_id, key, type=kind)
        assert reader.read_all() == ([value], True)
    assert [one.key for one in engine.streams.list(handle.workflow_id)] == ["at", "pairs", "raw"]


# -- errors ----------------------------------------------------------------------------------------------------------


class CrowdedError(Exception):
    """Its message is as long as one likes, and its record cannot hold one of its attributes."""

    def __init__(self, length: int) -> None:
        super().__init__("e" * length)
        self.connection = object()


@pytest.mark.parametrize("length", [50_000, 5_000_000])
def test_an_error_with_a_huge_message_ends_its_workflow_all_the_same(engine: Engine, length: int) -> None:
    """Thousands of open streams carry its beginning each; up to 100,000 characters it stays itself, and whole."""
    whole = length < 100_000
    caught_in_body: list[BaseException] = []

    @step
    async def failing() -> None:
        raise CrowdedError(length)

    @workflow
    async def flow() -> None:
        for number in range(2000):
            await write_stream_async(f"s{number}", number)
        try:
            await failing()
        except (CrowdedError, StepFailedError) as error:
            caught_in_body.append(error)
            raise

    handle = engine.start(flow)
    with pytest.raises(CrowdedError if whole else WorkflowFailedError) as caught:
        handle.result(timeout=PATIENCE)
    (first,) = caught_in_body
    if whole:
        assert type(first) is CrowdedError
        assert str(first) == str(caught.value) == "e" * length
        assert not hasattr(caught.value, "connection")
    else:
        assert isinstance(first, StepFailedError)
        assert first.error_type == "CrowdedError"
    assert "e" * 50_000 in str(caught.value)
    assert len(str(caught.value)) < 110_000
    reader = engine.read_stream(handle.workflow_id, "s1999")
    assert next(reader) == 1999
    with pytest.raises(StreamFailedError, match=rf"{'' if whole else 'StepFailedError: '}CrowdedError: eee") as ended:
        next(reader)
    assert len(str(ended.value)) < 2000
    assert isinstance(ended.value.__cause__, WorkflowFailedError)


# -- many streams ----------------------------------------------------------------------------------------------------


@workflow
async def fanning_out(count: int) -> int:
    """Leaves so many streams open."""
    for number in range(count):
        await write_stream_async(f"s{number}", number)
    return count


def test_ten_thousand_streams_of_one_workflow_end_in_one_transaction(database_url: str, engine: Engine) -> None:
    """That of its own end. Each is whole, and ten times as many take about ten times the work."""
    spent: dict[int, float] = {}
    workflow_id = ""
    for count in (1000, 1000, 10_000):
        workflow_id = str(uuid4())
        began = time.process_time()
        assert engine.run(fanning_out.options(workflow_id=workflow_id), count) == count
        took = time.process_time() - began
        spent[count] = min(took, spent.get(count, took))
    ended: list[tuple[Any, ...]] = rows(
        database_url,
        """SELECT count(DISTINCT b.key), count(DISTINCT b.xmin::text), bool_and(b.xmin = w.xmin)
           FROM dbosflow.stream_block b JOIN dbosflow.workflow w ON w.id = b.workflow_id
           WHERE w.id = %s AND b.kind = 'complete'""",
        workflow_id,
    )
    assert ended == [(10_000, 1, True)]
    assert disorder(database_url) == []
    assert len(engine.streams.list(workflow_id)) == 10_000
    for number in (0, 5000, 9999):
        assert engine.read_stream(workflow_id, f"s{number}").read_all() == ([number], True)
    assert spent[10_000] < 10 * spent[1000] * 4, spent  # were it quadratic, a hundred times


# -- queues ----------------------------------------------------------------------------------------------------------


def test_work_that_no_worker_knows_waits_and_is_warned_about_once(
    database_url: str, client: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning names workflow and queue, and what to do. Meanwhile it is queued, visible, and in nobody's way."""
    unknown = [client.start(passing.options(queue="q", workflow_id=f"w{number}"), 1) for number in range(3)]
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE dbosflow.workflow SET name = 'of a later release'")
    with caplog.at_level(logging.WARNING, "dbosflow"), Engine(database_url, safety_poll=0.1) as engine:
        serving = threading.Thread(target=engine.run_worker, args=("q",))
        serving.start()
        warnings = eventually(lambda: [text for text in caplog.messages if "of a later release" in text])
        assert [part in warnings[0] for part in ("'of a later release'", "queue 'q'", "Import its module")] == [
            True
        ] * 3
        for _ in range(20):
            assert client.run(passing.options(queue="q"), 1) == 1
        assert [handle.status() for handle in unknown] == [WorkflowStatus.QUEUED] * 3
        assert [(one.id, one.name) for one in client.list_workflows() if one.status is WorkflowStatus.QUEUED] == [
            (f"w{number}", "of a later release") for number in (2, 1, 0)
        ]
        assert len([text for text in caplog.messages if "of a later release" in text]) == 1
    serving.join(PATIENCE)
