"""Definitions of transactions: steps whose functions get a connection as their first argument."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict, get_args, get_origin

import psycopg

from dbosflow._records.kinds import RecordKind
from dbosflow.config import LARGEST_INTEGER, check_whole
from dbosflow.definitions import StepDef
from dbosflow.errors import ConfigurationError, DefinitionError
from dbosflow.functions import annotated

if TYPE_CHECKING:
    from dbosflow.retries import RetryOn

Isolation = Literal["read committed", "repeatable read", "serializable"]
"""The levels of isolation that Postgres has, by the names that it has for them."""


class TransactionOptions(TypedDict, total=False):
    """The options of a transaction, beside its name."""

    isolation: Isolation
    """``"read committed"`` (the default), ``"repeatable read"`` or ``"serializable"``."""
    read_only: bool
    """The transaction only reads (no). Its record is written by the engine afterwards, as that of a step."""
    max_conflicts: int
    """How often (50) an attempt begins anew, after a short pause that grows and is random, when Postgres has given its
    transaction up for another one (a serialization failure or a deadlock), or its connection was lost before the
    commit."""
    max_attempts: int
    """How often the function is tried (1) if it raises anything else."""
    interval: float
    """Seconds before the second attempt (1)."""
    backoff: float
    """The factor, at least 1, by which each further wait is longer than the one before (2)."""
    max_interval: float
    """The longest wait, in seconds (60)."""
    jitter: float
    """The fraction, from 0 (the default) to 1, by which each wait is made longer or shorter at random."""
    retry_on: RetryOn
    """The exceptions that are worth another attempt, as for ``@step``."""
    timeout: float | None
    """Seconds from the beginning of the transaction to the end of the function. A transaction that takes longer is
    rolled back, and fails with ``StepTimeoutError``. Of a sync function the statement is cancelled that runs then, or
    else the next one."""


@dataclass(frozen=True)
class TransactionDef(StepDef):
    """A step in a transaction of the user's, which commits the step's record, too."""

    isolation: Isolation = "read committed"
    read_only: bool = False
    max_conflicts: int = 50
    """How often an attempt begins anew because of conflicts with other transactions."""
    argument: type | tuple[type, ...] = (psycopg.Connection, psycopg.AsyncConnection)
    """The type of the function's first argument."""

    kind = "transaction"
    record_kind: ClassVar[RecordKind] = RecordKind.TRANSACTION

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.isolation not in get_args(Isolation):
            msg = f"isolation={self.isolation!r} must be one of {', '.join(map(repr, get_args(Isolation)))}"
            raise ConfigurationError(msg)
        read_only: object = self.read_only
        if not isinstance(read_only, bool):
            msg = f"read_only={self.read_only!r} must be True or False"
            raise ConfigurationError(msg)
        check_whole("a transaction's max_conflicts", self.max_conflicts, 0, LARGEST_INTEGER)

    def _check_timeout(self) -> None:
        """Both colours may have one: the statement of a sync function is cancelled."""

    def takes(self, value: object) -> bool:
        """Whether ``value`` can be the function's first argument."""
        return isinstance(value, self.argument)

    def check_not_given(self, args: tuple[Any, ...]) -> None:
        """Raises if the caller, in a workflow, has passed what the engine supplies."""
        if args and self.takes(args[0]):
            msg = (
                f"{self} was called in a workflow with a connection: the engine gives it one there, so leave the first "
                "argument out"
            )
            raise DefinitionError(msg)


def first_annotation(function: Any, name: str) -> Any:
    """The class that a function's first parameter is annotated with.

    Raises:
        DefinitionError: there is none, or its name cannot be resolved.
    """
    inner = annotated(function)
    parameters = [*inspect.signature(inner).parameters.values()]
    if not parameters or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        wanted = f"{name}(connection: psycopg.Connection, ...)"
        msg = f"transaction {name!r} needs a connection as its first parameter: {wanted}"
        raise DefinitionError(msg)
    annotation = parameters[0].annotation
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, getattr(inner, "__globals__", {}))  # noqa: S307 (as typing.get_type_hints)
        except Exception as error:
            msg = (
                f"transaction {name!r}: the annotation of its first parameter, {annotation!r}, cannot be resolved "
                f"({error}); import the name at run time, not under TYPE_CHECKING"
            )
            raise DefinitionError(msg) from error
    return get_origin(annotation) or annotation
