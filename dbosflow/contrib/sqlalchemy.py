"""Transactions on SQLAlchemy's sessions: as ``dbosflow.transaction``, with a ``Session`` or an ``AsyncSession``.

```python
from sqlalchemy.orm import Session
from dbosflow.contrib.sqlalchemy import transaction


@transaction
def rename(session: Session, account_id: int, name: str) -> None:
    session.get_one(Account, account_id).name = name
```

The session works on a connection of the engine's pool for transactions, by psycopg, in the transaction that commits the
step's record. Its pending changes are flushed when the function returns.
"""

from __future__ import annotations

import copy
import weakref
from contextvars import ContextVar
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, Concatenate, NoReturn, ParamSpec, TypeVar, Unpack, overload

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from dbosflow._store import statements
from dbosflow.errors import ConfigurationError, DefinitionError, TransactionError
from dbosflow.functions import unbound
from dbosflow.transaction_definitions import first_annotation
from dbosflow.transactions import Transaction, make_transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from dbosflow.transaction_definitions import TransactionOptions

__all__ = ["transaction"]

S = TypeVar("S", bound="Session | AsyncSession")
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_URL = "postgresql+psycopg://"
_raw: ContextVar[Any] = ContextVar("dbosflow_sqlalchemy_raw")
"""The psycopg connection on which a session is being made."""
_checked: weakref.WeakKeyDictionary[Any, set[tuple[Any, ...]]] = weakref.WeakKeyDictionary()
"""The databases to which each of the users' engines is known to lead."""
_copies: dict[AsyncEngine, AsyncEngine] = {}
"""For each of the users' engines the one on the connections of the workflow's engine."""
_DATABASE = sa.text(statements.load("transaction")["place"])


def _refuse(what: str) -> NoReturn:
    msg = (
        f"{what} in a transaction of dbosflow: the engine commits it when the function returns, together with the "
        "record of the step, and rolls it back when the function raises. For a part that may fail use "
        "`with session.begin_nested():`, which is a savepoint"
    )
    raise TransactionError(msg)


class _Session(Session):
    """A session whose transaction is the engine's."""

    def commit(self) -> None:
        """Refused: see ``TransactionError``."""
        _refuse("session.commit() was called")

    def rollback(self) -> None:
        """Refused: see ``TransactionError``."""
        _refuse("session.rollback() was called")


class _AsyncSession(AsyncSession):
    """Its awaitable twin."""

    sync_session_class = _Session

    async def commit(self) -> None:
        _refuse("session.commit() was called")

    async def rollback(self) -> None:
        _refuse("session.rollback() was called")


class TransactionDecorator:
    """The result of ``@transaction(...)``: a decorator that has the options."""

    def __init__(self, name: str | None, engine: Any, options: TransactionOptions) -> None:
        self._name = name
        self._engine = engine
        self._options = options

    @overload
    def __call__(
        self, function: Callable[Concatenate[S, P], Coroutine[Any, Any, T]]
    ) -> Transaction[S, P, Coroutine[Any, Any, T], T]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[S, P], R]) -> Transaction[S, P, R, R]: ...
    def __call__(self, function: Any) -> Any:
        """Makes ``function`` a transaction."""
        return _make(function, self._name, self._engine, self._options)


@overload
def transaction(
    function: Callable[Concatenate[S, P], Coroutine[Any, Any, T]], /
) -> Transaction[S, P, Coroutine[Any, Any, T], T]: ...
@overload
def transaction(function: Callable[Concatenate[S, P], R], /) -> Transaction[S, P, R, R]: ...
@overload
def transaction(
    *,
    engine: sa.Engine | AsyncEngine | None = None,
    name: str | None = None,
    **options: Unpack[TransactionOptions],
) -> TransactionDecorator: ...
def transaction(
    function: Any = None,
    /,
    *,
    engine: sa.Engine | AsyncEngine | None = None,
    name: str | None = None,
    **options: Unpack[TransactionOptions],
) -> Any:
    """Makes a function on a session a transaction: a step whose record is committed together with what it writes.

    Everything that ``dbosflow.transaction`` says holds here, too; only the first argument is another one. The function
    leaves ``commit`` and ``rollback`` to the engine; ``session.begin_nested()`` is a savepoint.

    Args:
        function: a function whose first parameter is annotated as ``sqlalchemy.orm.Session``, or an async one with
            ``sqlalchemy.ext.asyncio.AsyncSession``.
        engine: your own SQLAlchemy engine, of the function's colour, whose dialect, options and events the session then
            has, except what it does to its own connections: events of its pool, and ``json_serializer`` and
            ``json_deserializer``. It must lead to the same database, by psycopg (``postgresql+psycopg://``). By
            default the session has SQLAlchemy's defaults.
        name: the name in records. Default: the function's own.
        options: those of ``dbosflow.transaction``.

    Raises:
        DefinitionError: the function cannot be a transaction.
        ConfigurationError: an option is not valid, or the engine uses another driver. When the transaction runs: the
            engine leads to another database.
    """
    return TransactionDecorator(name, engine, options) if function is None else _make(function, name, engine, options)


def _make(decorated: Any, name: str | None, engine: Any, options: TransactionOptions) -> Any:
    function, method = unbound(decorated)
    annotation = first_annotation(function, getattr(function, "__name__", "?"))
    is_async = isinstance(annotation, type) and issubclass(annotation, AsyncSession)
    is_sync = isinstance(annotation, type) and issubclass(annotation, Session)
    if method is classmethod or not (is_async or is_sync):
        msg = (
            f"the first parameter of {function!r} must be annotated as sqlalchemy.orm.Session, or as "
            f"sqlalchemy.ext.asyncio.AsyncSession, and it is {annotation!r}. Methods cannot be transactions, except "
            "static ones"
        )
        raise DefinitionError(msg)
    wanted: Any = AsyncEngine if is_async else sa.Engine
    if engine is not None and not isinstance(engine, wanted):
        msg = f"engine={engine!r} must be a SQLAlchemy {wanted.__name__}, as the function takes {annotation.__name__}"
        raise ConfigurationError(msg)
    if engine is not None and engine.dialect.driver not in {"psycopg", "psycopg_async"}:
        msg = f"engine={engine!r} must use psycopg: make it with {_URL}..., since the record is written by psycopg"
        raise ConfigurationError(msg)
    wrapper = _async_wrapper(function, engine) if is_async else _wrapper(function, engine)
    whole = wrapper if method is None else staticmethod(wrapper)
    return make_transaction(whole, name, options, argument=AsyncSession if is_async else Session)


def _wrapper(function: Any, engine: sa.Engine | None) -> Any:
    @wraps(function)
    def on_session(raw: Any, /, *args: Any, **kwargs: Any) -> Any:
        if isinstance(raw, Session):  # outside of workflows the caller passes it
            return function(raw, *args, **kwargs)
        token = _raw.set(raw)
        try:
            bind = _of(engine) if engine is not None else _default()
            with bind.connect() as connection:
                if engine is not None:
                    _check(engine, connection)
                with _Session(bind=connection) as session:
                    value = function(session, *args, **kwargs)
                    session.flush()
                    return value
        finally:
            _raw.reset(token)

    return on_session


def _async_wrapper(function: Any, engine: AsyncEngine | None) -> Any:
    @wraps(function)
    async def on_session(raw: Any, /, *args: Any, **kwargs: Any) -> Any:
        if isinstance(raw, AsyncSession):
            return await function(raw, *args, **kwargs)
        token = _raw.set(raw)
        try:
            bind = await _of_async(engine) if engine is not None else _default_async()
            async with bind.connect() as connection:
                if engine is not None:
                    await _check_async(engine, connection)
                async with _AsyncSession(bind=connection) as session:
                    value = await function(session, *args, **kwargs)
                    await session.flush()
                    return value
        finally:
            _raw.reset(token)

    return on_session


# -- engines whose connections are those that the workflow's engine has given -----------------------------------------


def _given() -> Any:
    return _raw.get()


async def _given_async() -> Any:
    return _raw.get()


def _ends_nothing(dialect: Any) -> None:
    """Has a dialect end no transaction and close no connection: that is the business of the workflow's engine."""
    for name in ("do_begin", "do_commit", "do_rollback", "do_close", "do_terminate"):
        setattr(dialect, name, lambda _: None)


@cache
def _default() -> sa.Engine:
    made = sa.create_engine(_URL, creator=_given, poolclass=NullPool, pool_reset_on_return=None)
    _ends_nothing(made.dialect)
    return made


@cache
def _default_async() -> AsyncEngine:
    made = create_async_engine(_URL, async_creator=_given_async, poolclass=NullPool, pool_reset_on_return=None)
    _ends_nothing(made.dialect)
    return made


@cache
def _of(engine: sa.Engine) -> sa.Engine:
    """An engine with everything of the user's but its connections."""
    with engine.connect():  # its dialect looks at the server when it connects for the first time
        dialect = copy.copy(engine.dialect)
    _ends_nothing(dialect)
    made = sa.Engine(NullPool(_given, reset_on_return=None, dialect=dialect), dialect, engine.url)
    made.dispatch = made.dispatch._join(engine.dispatch)  # noqa: SLF001 (as SQLAlchemy's own OptionEngine)
    return made.execution_options(**engine.get_execution_options())


async def _of_async(engine: AsyncEngine) -> AsyncEngine:
    if engine not in _copies:
        async with engine.connect():
            _copies[engine] = _copy_of(engine)
    return _copies[engine]


def _copy_of(engine: AsyncEngine) -> AsyncEngine:
    sync = engine.sync_engine
    dialect = copy.copy(sync.dialect)
    _ends_nothing(dialect)

    def connect() -> Any:
        return dialect.loaded_dbapi.connect(async_creator_fn=_given_async)

    made = sa.Engine(NullPool(connect, reset_on_return=None, dialect=dialect), dialect, sync.url)
    made.dispatch = made.dispatch._join(sync.dispatch)  # noqa: SLF001
    return AsyncEngine(made.execution_options(**sync.get_execution_options()))


def _check(engine: sa.Engine, connection: sa.Connection) -> None:
    here = tuple(connection.execute(_DATABASE).one())
    if here not in _checked.setdefault(engine, set()):
        with engine.connect() as own:
            _compare(here, tuple(own.execute(_DATABASE).one()))
        _checked[engine].add(here)


async def _check_async(engine: AsyncEngine, connection: AsyncConnection) -> None:
    here = tuple((await connection.execute(_DATABASE)).one())
    if here not in _checked.setdefault(engine, set()):
        async with engine.connect() as own:
            _compare(here, tuple((await own.execute(_DATABASE)).one()))
        _checked[engine].add(here)


def _compare(here: tuple[Any, ...], there: tuple[Any, ...]) -> None:
    if here != there:
        msg = (
            f"the SQLAlchemy engine of a transaction leads to database {there[0]!r}, and the workflows are in "
            f"{here[0]!r} of the server that began at {here[1]}: one commit covers one database. Give it an engine to "
            "that one, or make the function a @step"
        )
        raise ConfigurationError(msg)
