"""Transactions: steps that commit their records together with the user's own rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, Unpack, overload

import psycopg

from dbosflow.definitions import check_name
from dbosflow.errors import ConfigurationError, DefinitionError
from dbosflow.functions import caller_locals, check_decorated, local_name, unbound
from dbosflow.retries import retry_policy
from dbosflow.steps import Step
from dbosflow.transaction_definitions import TransactionDef, TransactionOptions, first_annotation

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

C = TypeVar("C", bound="psycopg.Connection[Any] | psycopg.AsyncConnection[Any]")
A = TypeVar("A")
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Transaction(Step[P, R, T], Generic[A, P, R, T]):
    """A function decorated with ``@transaction``.

    In a workflow it is a step that the engine gives a connection, in a transaction: call it without one. Anywhere else
    it is a plain function, and the caller passes the connection: what it does is a part of the caller's transaction.
    """

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(self, connection: A, /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    def __call__(self, *args: Any, **kwargs: Any) -> R:  # type: ignore[misc]  # of signature 2, with `connection`
        """Runs the transaction and commits it with the record of its outcome; a replay returns the recorded one.

        Raises:
            Exception: the exception of the last attempt, whose rows are rolled back.
            TransactionError: the function did what only the engine may do, or what a transaction cannot hold.
            psycopg.errors.SerializationFailure: there were more than ``max_conflicts`` conflicts; or a
                ``DeadlockDetected``.
            DefinitionError: a connection was passed in a workflow, or none was passed elsewhere.
        """
        return super().__call__(*args, **kwargs)


class TransactionDecorator:
    """The result of ``@transaction(...)``: a decorator that has the options."""

    def __init__(self, name: str | None, options: TransactionOptions) -> None:
        self._name = name
        self._options = options

    @overload
    def __call__(
        self, function: Callable[Concatenate[C, P], Coroutine[Any, Any, T]]
    ) -> Transaction[C, P, Coroutine[Any, Any, T], T]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[C, P], R]) -> Transaction[C, P, R, R]: ...
    def __call__(self, function: Any) -> Any:
        """Makes ``function`` a transaction."""
        return _make(function, self._name, self._options)


@overload
def transaction(
    function: Callable[Concatenate[C, P], Coroutine[Any, Any, T]], /
) -> Transaction[C, P, Coroutine[Any, Any, T], T]: ...
@overload
def transaction(function: Callable[Concatenate[C, P], R], /) -> Transaction[C, P, R, R]: ...
@overload
def transaction(*, name: str | None = None, **options: Unpack[TransactionOptions]) -> TransactionDecorator: ...
def transaction(function: Any = None, /, *, name: str | None = None, **options: Unpack[TransactionOptions]) -> Any:
    """Makes a function a transaction: a step whose record is committed together with the rows that it writes.

    Its first parameter is annotated as ``psycopg.Connection`` (sync) or ``psycopg.AsyncConnection`` (async). In a
    workflow the engine supplies that argument: a connection to its own database, in a transaction that has begun. When
    the function returns, the engine writes the record into that transaction, with what the function has written to
    streams, and commits. So the rows and the record are there once and together, or neither is, also after a crash at
    any point or a lost answer. If the function raises, everything is rolled back.

    The function may run more than once, until one of its transactions is committed. It leaves the end of the
    transaction to the engine; ``with connection.transaction():`` is a savepoint. It calls no steps, no workflows and
    nothing that waits for messages. Postgres ends a transaction that sends nothing for a lease (10 s by default).

    Args:
        function: a sync or async function.
        name: the name in records. Default: the function's own.
        options: see ``TransactionOptions``.

    Raises:
        DefinitionError: the function cannot be a transaction: its first parameter is no connection of its colour.
        ConfigurationError: an option is not valid.
    """
    return TransactionDecorator(name, options) if function is None else _make(function, name, options)


def _make(decorated: Any, name: str | None, options: TransactionOptions) -> Transaction[Any, ..., Any, Any]:
    made = make_transaction(decorated, name, options)
    definition = made.definition
    annotation = first_annotation(definition.function, definition.name)
    wanted = psycopg.AsyncConnection if definition.is_async or definition.wraps_async else psycopg.Connection
    if definition.method is classmethod or not (isinstance(annotation, type) and issubclass(wanted, annotation)):
        colour = "an async" if wanted is psycopg.AsyncConnection else "a sync"
        msg = (
            f"transaction {definition.name!r} is {colour} function: its first parameter must be annotated as "
            f"psycopg.{wanted.__name__}, and it is {annotation!r}. Methods cannot be transactions, except static ones; "
            "for SQLAlchemy use dbosflow.contrib.sqlalchemy"
        )
        raise DefinitionError(msg)
    return made


def make_transaction(
    decorated: Any, name: str | None, options: TransactionOptions, argument: type | None = None
) -> Transaction[Any, ..., Any, Any]:
    """A transaction with the options of ``transaction``. Its function gets a connection of psycopg.

    Outside of workflows it takes what is of the type ``argument``; by default, a connection of psycopg.
    """
    function, method = unbound(decorated)
    check_decorated("transaction", function)
    own_name = check_name("transaction", local_name(function) if name is None else name)
    unknown = options.keys() - TransactionOptions.__annotations__.keys()
    if unknown:
        msg = f"there is no option {min(unknown)!r}; these are: name, {', '.join(TransactionOptions.__annotations__)}"
        raise ConfigurationError(msg)
    of_steps: dict[str, Any] = {}
    others: dict[str, Any] = {} if argument is None else {"argument": argument}
    for option, value in options.items():
        (others if option in _OWN else of_steps)[option] = value
    retry = retry_policy(**of_steps)
    return Transaction(TransactionDef(function, own_name, caller_locals(function, depth=3), method, retry, **others))


_OWN = frozenset({"isolation", "read_only", "max_conflicts", "timeout"})
"""The options that are not those of a step's retries."""
