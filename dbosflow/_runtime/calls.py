"""Calls of decorated functions: inside a workflow an operation, anywhere else a plain call."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING, Any, cast

from dbosflow._runtime import operations
from dbosflow._runtime.branch import Branch
from dbosflow._runtime.hands import drive
from dbosflow._runtime.host import refuse_on_loop
from dbosflow._runtime.runner import some_run_here
from dbosflow._runtime.scope import PlainCall, current_scope, entered
from dbosflow.errors import DefinitionError, WrongColourError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from types import CoroutineType

    from dbosflow.definitions import FunctionDef, StepDef, WorkflowDef

logger = logging.getLogger("dbosflow.steps")

_warned: set[tuple[str, int]] = set()


def call_step(step: StepDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """A step called like the function that it is."""
    scope = current_scope.get()
    if not isinstance(scope, Branch):
        if scope is None:
            _warn_if_meant_durably(step)
        return plain_call(step, args, kwargs)
    if step.is_async != _on_loop():
        right = f"{step.name}.run(...)" if step.is_async else f"await {step.name}.run_async(...)"
        colours = ("an async", "a sync") if step.is_async else ("a sync", "an async")
        msg = f"{step} is {colours[0]} function and was called from {colours[1]} workflow; write `{right}`"
        raise WrongColourError(msg)
    return _async_step(step, args, kwargs) if step.is_async else _blocking_step(scope, step, args, kwargs)


def run_step(step: StepDef, args: tuple[Any, ...], kwargs: Mapping[str, Any], twin: str) -> Any:
    """A step of either colour, from sync code."""
    refuse_on_loop(twin)
    scope = current_scope.get()
    if isinstance(scope, Branch):
        return _blocking_step(scope, step, args, kwargs)
    return run_plainly(step, args, kwargs)


def run_step_async(step: StepDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Coroutine[Any, Any, Any]:
    """A step of either colour, from async code."""
    scope = current_scope.get()
    if isinstance(scope, Branch):
        return _async_step(step, args, kwargs)
    return run_plainly_async(step, args, kwargs)


def call_workflow(workflow: WorkflowDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """A workflow called like the function that it is: outside an engine it is just that."""
    if current_scope.get() is None or isinstance(current_scope.get(), PlainCall):
        return plain_call(workflow, args, kwargs)
    msg = (
        f"{workflow} was called inside a workflow or step, which is not supported yet; start it with engine.start(...)"
    )
    raise DefinitionError(msg)


def plain_call(function: FunctionDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Calls the function itself. Outside a workflow its stream writes are validated and dropped."""
    if current_scope.get() is not None:
        return function.call(*args, **kwargs)
    if function.is_async:
        return _plain_async(function, args, kwargs)
    with entered(PlainCall()):
        return function.call(*args, **kwargs)


def run_plainly(function: FunctionDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """A plain call of either colour, from sync code."""
    if function.is_async:
        return asyncio.run(plain_call(function, args, kwargs))
    return plain_call(function, args, kwargs)


async def run_plainly_async(function: FunctionDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """A plain call of either colour, from async code; a sync function goes to a thread."""
    if function.is_async:
        return await plain_call(function, args, kwargs)
    return await asyncio.to_thread(plain_call, function, args, kwargs)


async def _plain_async(function: FunctionDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    with entered(PlainCall()):
        return await function.call(*args, **kwargs)


def _async_step(step: StepDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Coroutine[Any, Any, Any]:
    """The operation as a coroutine. A task that is made of it is a branch of its own, named after the step."""
    operation = cast("CoroutineType[Any, Any, Any]", _scoped_step(step, args, kwargs))
    operation.__qualname__ = step.name
    return operation


async def _scoped_step(step: StepDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    scope = current_scope.get()
    if not isinstance(scope, Branch):  # carried out of the workflow, or into a step
        return await run_plainly_async(step, args, kwargs)
    return await operations.run_step(scope.run.loop_hands, scope, step, args, kwargs)


def _blocking_step(scope: Branch, step: StepDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return drive(operations.run_step(scope.run.thread_hands, scope, step, args, kwargs))


def _on_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _warn_if_meant_durably(step: StepDef) -> None:
    """A step on a thread that lost its workflow's context is a plain call: said once for each place in the code."""
    if not some_run_here():
        return
    frame = sys._getframe(3)  # noqa: SLF001 (who called the step)
    place = (frame.f_code.co_filename, frame.f_lineno)
    if place not in _warned:
        _warned.add(place)
        logger.warning(
            "%s was called outside of any workflow, at %s:%d, while this process runs workflows: it is a plain call "
            "and leaves no record. If it belongs to a workflow, call it from the workflow's own code",
            *(step, *place),
        )
