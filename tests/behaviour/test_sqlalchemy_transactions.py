"""Transactions on sessions of SQLAlchemy: their rows and their records are one, as on connections of psycopg."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool

from dbosflow import Engine, current, recv_async, workflow, write_stream
from dbosflow import transaction as psycopg_transaction
from dbosflow.contrib.sqlalchemy import transaction
from dbosflow.errors import ConfigurationError, DefinitionError, StepTimeoutError, TransactionError
from tests.behaviour.tables import rows

if TYPE_CHECKING:
    from collections.abc import Callable


class Base(DeclarativeBase):
    """The tables of these tests."""


class Account(Base):
    """An account."""

    __tablename__ = "orm_account"
    id: Mapped[int] = mapped_column(primary_key=True)
    balance: Mapped[int]


@pytest.fixture(autouse=True)
def _tables(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE orm_account (id integer PRIMARY KEY, balance integer NOT NULL)")
        connection.execute("INSERT INTO orm_account VALUES (1, 100), (2, 0)")


def inner(decorated: Any) -> Any:
    """The function that was decorated."""
    return decorated.definition.function.__wrapped__


def balances(url: str) -> list[tuple[Any, ...]]:
    return rows(url, "SELECT id, balance FROM orm_account ORDER BY id")


@transaction
def orm_moves(session: Session, amount: int) -> int:
    """Moves money by changing objects, which are flushed at the end."""
    source, target = session.get_one(Account, 1), session.get_one(Account, 2)
    source.balance -= amount
    target.balance += amount
    write_stream("moved", amount)
    return source.balance


@transaction(isolation="serializable")
async def orm_moves_async(session: AsyncSession, amount: int) -> int:
    """The same, async."""
    source, target = await session.get_one(Account, 1), await session.get_one(Account, 2)
    source.balance -= amount
    target.balance += amount
    return source.balance


@workflow
async def orm_pays(amount: int) -> list[int]:
    return [await orm_moves.run_async(amount), await orm_moves_async(amount)]


@workflow
def orm_pays_on_thread(amount: int) -> list[int]:
    return [orm_moves(amount), orm_moves_async.run(amount)]


@pytest.mark.parametrize("flow", [orm_pays, orm_pays_on_thread])
def test_what_a_session_holds_is_committed_with_the_record(engine: Engine, database_url: str, flow: Any) -> None:
    """Of both colours, once, with what was written to streams."""
    for _ in range(2):
        assert engine.run(flow.options(workflow_id="w"), 30) == [70, 40]
    assert balances(database_url) == [(1, 40), (2, 60)]
    assert [one.kind for one in engine.list_steps("w")] == ["transaction"] * 2
    assert engine.read_stream("w", "moved").read_all() == ([30], True)


@workflow
async def orm_doubles(number: int) -> int:
    return 2 * number


@workflow
async def orm_receives() -> Any:
    return await recv_async("t")


@transaction
def orm_places(session: Session) -> str:
    """Starts a workflow and sends to another one in the transaction."""
    engine: Engine = OPENED[0]
    engine.send_in(session, "waits", "sync", "t")
    return engine.start_in(session, orm_doubles, 4).workflow_id


@transaction
async def orm_places_async(session: AsyncSession) -> str:
    """The same, async."""
    engine: Engine = OPENED[0]
    await engine.send_in_async(session, "waits_async", "async", "t")
    return (await engine.start_in_async(session, orm_doubles, 5)).workflow_id


OPENED: list[Engine] = []
"""The engine of the test."""


@workflow
async def orm_placing() -> list[str]:
    return [await orm_places.run_async(), await orm_places_async()]


def test_a_session_starts_workflows_and_sends(engine: Engine) -> None:
    """The engine's methods for users' transactions take part in the transaction of a step, too."""
    OPENED[:] = [engine]
    waiting = [engine.start(orm_receives.options(workflow_id=one)) for one in ("waits", "waits_async")]
    assert [engine.handle(one).result(timeout=60) for one in engine.run(orm_placing)] == [8, 10]
    assert [one.result(timeout=60) for one in waiting] == ["sync", "async"]


@transaction
def orm_wrong(session: Session, what: str) -> None:
    """Does what it may not do."""
    session.get_one(Account, 1).balance = 0
    session.flush()
    WRONG[what](session)


def adds_twice(session: Session) -> None:
    session.add(Account(id=1, balance=1))
    session.flush()


WRONG: dict[str, Callable[[Session], Any]] = {
    "commit": lambda session: session.commit(),
    "rollback": lambda session: session.rollback(),
    "COMMIT": lambda session: session.execute(sa.text("COMMIT")),
    "error": adds_twice,
}


@workflow
def orm_goes_wrong(what: str) -> None:
    orm_wrong(what)


@pytest.mark.parametrize("what", WRONG)
def test_the_end_of_the_transaction_is_not_the_sessions(engine: Engine, database_url: str, what: str) -> None:
    """What it may not do is an error that says so, and an error of the database is that error; nothing stays."""
    with pytest.raises(IntegrityError if what == "error" else TransactionError):
        engine.run(orm_goes_wrong, what)
    if what != "COMMIT":
        assert balances(database_url) == [(1, 100), (2, 0)]


@transaction
def orm_tries(session: Session) -> int:
    """A part that fails, in a savepoint."""
    with pytest.raises(IntegrityError), session.begin_nested():
        adds_twice(session)
    session.get_one(Account, 2).balance = 7
    return 7


@workflow
def orm_trying() -> int:
    return orm_tries()


def test_a_savepoint_may_fail(engine: Engine, database_url: str) -> None:
    for _ in range(3):
        assert engine.run(orm_trying) == 7
    assert balances(database_url) == [(1, 100), (2, 7)]


def test_an_engine_of_the_users_own_gives_its_options(engine: Engine, database_url: str) -> None:
    """Its schema names, for example; the connection is that of the workflow's engine."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA other")
        connection.execute("CREATE TABLE other.orm_account (LIKE orm_account)")
        connection.execute("INSERT INTO other.orm_account VALUES (1, 500), (2, 0)")
    own = sa.create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(database_url), poolclass=NullPool
    ).execution_options(schema_translate_map={None: "other"})
    own_async = create_async_engine(
        "postgresql+psycopg://",
        async_creator=lambda: psycopg.AsyncConnection.connect(database_url),
        poolclass=NullPool,
        execution_options={"schema_translate_map": {None: "other"}},
    )
    moves: Any = transaction(engine=own, name="own")(inner(orm_moves))
    moves_async: Any = transaction(engine=own_async, name="own_async")(inner(orm_moves_async))

    @workflow(name="orm_own")
    async def orm_own() -> list[int]:
        return [await moves.run_async(1), await moves_async(1)]

    for left in (499, 497):
        assert engine.run(orm_own) == [left, left - 1]
    assert balances(database_url) == [(1, 100), (2, 0)]


def test_an_engine_to_another_database_is_refused(engine: Engine, empty_database_url: str) -> None:
    """One commit covers one database: the error names both."""
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE orm_account (id integer PRIMARY KEY, balance integer NOT NULL)")
    own = sa.create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(empty_database_url), poolclass=NullPool
    )
    moves: Any = transaction(engine=own, name="elsewhere")(inner(orm_moves))

    @workflow(name="orm_elsewhere")
    def orm_elsewhere() -> int:
        result: int = moves(1)
        return result

    with pytest.raises(ConfigurationError, match="leads to database"):
        engine.run(orm_elsewhere)


def test_what_is_no_session_is_refused_where_it_is_defined() -> None:
    with pytest.raises(ConfigurationError, match=r"postgresql\+psycopg"):
        transaction(engine=sa.create_engine("sqlite://"))(inner(orm_moves))
    with pytest.raises(ConfigurationError, match="AsyncEngine"):
        transaction(engine=sa.create_engine("sqlite://"))(inner(orm_moves_async))
    with pytest.raises(DefinitionError, match="sqlalchemy"):
        psycopg_transaction(inner(orm_moves))


def test_outside_of_workflows_the_caller_passes_the_session(database_url: str) -> None:
    own = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(database_url), poolclass=NullPool)
    with Session(own) as session:
        assert orm_moves(session, 1) == 99
        session.rollback()
    assert balances(database_url) == [(1, 100), (2, 0)]


class Desk:
    """A class with a transaction."""

    @transaction
    @staticmethod
    def adds(session: Session, amount: int) -> int:
        account = session.get_one(Account, 2)
        account.balance += amount
        return account.balance


@workflow
def orm_method() -> list[int]:
    return [Desk.adds(1), Desk.adds(1)]


def test_a_static_method_may_be_a_transaction(engine: Engine) -> None:
    assert engine.run(orm_method) == [1, 2]


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_conflict_on_a_session_begins_the_transaction_anew(engine: Engine, database_url: str, level: Any) -> None:
    """SQLAlchemy has errors of its own, around those of psycopg."""
    tries: list[str | None] = []
    with psycopg.connect(database_url, autocommit=True) as other:

        @transaction(isolation=level)
        def reads_then_adds(session: Session) -> None:
            account = session.get_one(Account, 1)
            tries.append(current().attempt)
            if len(tries) == 1:
                other.execute("UPDATE orm_account SET balance = balance + 7 WHERE id = 1")
            account.balance += 1

        @workflow(name="orm_conflicting")
        def orm_conflicting() -> None:
            reads_then_adds()

        engine.run(orm_conflicting)
    assert tries == ["1.1", "1.2"]
    assert balances(database_url)[0] == (1, 108)


@transaction(timeout=0.2)
def orm_dawdles(session: Session) -> None:
    session.execute(sa.text("SELECT pg_sleep(60)"))


@workflow
def orm_dawdling() -> None:
    orm_dawdles()


def test_a_timeout_of_a_function_on_a_session_says_so(engine: Engine) -> None:
    with pytest.raises(StepTimeoutError, match="timeout"):
        engine.run(orm_dawdling)
