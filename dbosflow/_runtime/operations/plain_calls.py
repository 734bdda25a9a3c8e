"""Decorated functions called as what they are: outside of any workflow, or inside a step."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from dbosflow._runtime.execution.continuing import ContinuedAsNew, continued_by
from dbosflow._runtime.execution.isolation import awaited, is_awaitable, outcome_of
from dbosflow._runtime.execution.scope import Entered, PlainCall, current_scope, refuse_in_transaction
from dbosflow.errors import DefinitionError
from dbosflow.transaction_definitions import TransactionDef

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from dbosflow.definitions import FunctionDef, StepDef


def check_plain_step(step: StepDef, args: tuple[Any, ...]) -> None:
    """Raises where a step or transaction cannot be called as a plain function."""
    if not isinstance(step, TransactionDef):
        refuse_in_transaction(step)
    elif not args or not step.takes(args[0]):
        msg = (
            f"{step} was called outside of a workflow, where no engine gives it a connection: pass one as the first "
            f"argument, {step.name}(connection, ...). What it does is then a part of your own transaction"
        )
        raise DefinitionError(msg)


def plain_call(function: FunctionDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Calls the function itself. Outside a workflow its stream writes are validated and dropped."""
    if current_scope() is not None:
        return function.function(*args, **kwargs)
    if function.is_async:
        return _plain_async(function, args, kwargs)
    value = _plain_value(function, args, kwargs)
    return _plainly_awaited(value) if is_awaitable(value) else value


def run_plainly(function: FunctionDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """A plain call of either colour, from sync code."""
    value = plain_call(function, args, kwargs)
    return asyncio.run(awaited(value)) if is_awaitable(value) else value


async def run_plainly_async(function: FunctionDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """A plain call of either colour, from async code; a sync function goes to a thread."""
    if function.is_async:
        return await plain_call(function, args, kwargs)
    value = await asyncio.to_thread(plain_call, function, args, kwargs)
    return await value if is_awaitable(value) else value


def _plain_value(function: FunctionDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    with Entered(PlainCall()):
        while True:
            try:
                return function.function(*args, **kwargs)
            except ContinuedAsNew as again:
                args, kwargs = _again(function, args, again)


async def _plain_async(function: FunctionDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    with Entered(PlainCall()):
        while True:
            try:
                return await outcome_of(function.function, *args, **kwargs)
            except BaseException as error:
                again = continued_by(error)
                if again is None:
                    raise
                args, kwargs = _again(function, args, again)


def _again(
    function: FunctionDef, args: tuple[Any, ...], again: ContinuedAsNew
) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """The arguments of the next iteration. That of a class method gets the same class."""
    receiver = args[:1] if function.method is classmethod else ()
    return (*receiver, *again.positional), again.named


async def _plainly_awaited(value: Awaitable[Any]) -> Any:
    with Entered(PlainCall()):
        return await value
