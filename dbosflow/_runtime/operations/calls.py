"""Calls of decorated functions: inside a workflow an operation, anywhere else a plain call."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING, Any, cast

from dbosflow._runtime.execution.drivers import drive
from dbosflow._runtime.execution.isolation import awaited, is_awaitable, outcome_of
from dbosflow._runtime.execution.run import StepAttempt
from dbosflow._runtime.execution.runner import some_run_here
from dbosflow._runtime.execution.scope import Entered, PlainCall, current_scope
from dbosflow._runtime.operations import children
from dbosflow._runtime.operations import steps as operations
from dbosflow._runtime.operations.children import ChildOptions
from dbosflow._runtime.process.host import refuse_on_loop, some_engine_is_open
from dbosflow._runtime.replay.branch import Branch
from dbosflow.errors import DefinitionError, NotInWorkflowError, WrongColourError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine, Mapping
    from types import CoroutineType

    from dbosflow._runtime.execution.drivers import Driver
    from dbosflow._runtime.execution.run import RunBranch
    from dbosflow.definitions import FunctionDef, StepDef, WorkflowDef

logger = logging.getLogger("dbosflow.steps")

_warned: set[tuple[str, str, int]] = set()


def call_step(step: StepDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """A step called like the function that it is."""
    scope = current_scope()
    if not isinstance(scope, Branch):
        if scope is None:
            _warn_of_lost_context(step)
        return plain_call(step, args, kwargs)
    on_loop = _own_colour(step)
    return _async_step(step, args, kwargs) if on_loop else _blocking_step(scope, step, args, kwargs)


def run_step(step: StepDef, args: tuple[Any, ...], kwargs: Mapping[str, Any], twin: str) -> Any:
    """A step of either colour, from sync code."""
    refuse_on_loop(twin)
    scope = current_scope()
    if isinstance(scope, Branch):
        return _blocking_step(scope, step, args, kwargs)
    return run_plainly(step, args, kwargs)


def run_step_async(step: StepDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Coroutine[Any, Any, Any]:
    """A step of either colour, from async code."""
    scope = current_scope()
    if isinstance(scope, Branch):
        return _async_step(step, args, kwargs)
    return run_plainly_async(step, args, kwargs)


def call_workflow(workflow: WorkflowDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """A workflow called like the function that it is: inside a workflow it is a child, outside an engine just that."""
    scope = current_scope()
    if isinstance(scope, Branch):
        on_loop = _own_colour(workflow)
        return run_child_async(workflow, args, kwargs) if on_loop else run_child(workflow, args, kwargs, "")
    _check_no_attempt(workflow)
    _warn_of_plain_call(workflow)
    return plain_call(workflow, args, kwargs)


def run_child(workflow: WorkflowDef, args: tuple[Any, ...], kwargs: Mapping[str, Any], twin: str) -> Any:
    """A child of either colour, from sync code."""
    refuse_on_loop(twin)
    scope = current_scope()
    if isinstance(scope, Branch):
        driver = scope.run.thread_driver
        return drive(_child(driver, scope, workflow, args, kwargs))
    _check_no_attempt(workflow)
    _warn_of_plain_call(workflow)
    return run_plainly(workflow, args, kwargs)


def run_child_async(
    workflow: WorkflowDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Coroutine[Any, Any, Any]:
    """A child of either colour, from async code."""
    _check_no_attempt(workflow)
    _warn_of_plain_call(workflow)
    return _named(_scoped_child(workflow, args, kwargs), workflow)


def start_child(
    workflow: WorkflowDef, options: ChildOptions, args: tuple[Any, ...], kwargs: Mapping[str, Any], twin: str
) -> Any:
    """A child that is not waited for, from sync code; its handle."""
    refuse_on_loop(twin)
    scope = _workflow_around(workflow)
    child_id = drive(children.start_child(scope.run.thread_driver, scope, workflow, options, args=args, kwargs=kwargs))
    return scope.run.engine.handle(child_id, workflow)


async def start_child_async(
    workflow: WorkflowDef, options: ChildOptions, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """A child that is not waited for, from async code; its handle."""
    scope = _workflow_around(workflow)
    child_id = await children.start_child(scope.run.loop_driver, scope, workflow, options, args=args, kwargs=kwargs)
    return scope.run.engine.handle(child_id, workflow)


async def _scoped_child(workflow: WorkflowDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    scope = current_scope()
    if not isinstance(scope, Branch):
        return await run_plainly_async(workflow, args, kwargs)
    return await _child(scope.run.loop_driver, scope, workflow, args, kwargs)


async def _child(
    driver: Driver, branch: RunBranch, workflow: WorkflowDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    child_id = await children.start_child(driver, branch, workflow, ChildOptions(), args=args, kwargs=kwargs)
    return await children.wait_for_result(driver, branch, child_id, workflow)


def _workflow_around(workflow: WorkflowDef) -> RunBranch:
    scope = current_scope()
    if isinstance(scope, Branch):
        return scope
    _check_no_attempt(workflow)
    msg = f"{workflow} can be started as a child only inside a workflow; outside of one use engine.start(...)"
    raise NotInWorkflowError(msg)


def _check_no_attempt(workflow: WorkflowDef) -> None:
    if isinstance(current_scope(), StepAttempt):
        msg = f"{workflow} was called inside a step: a step that runs again would start it again"
        raise DefinitionError(msg)


def _own_colour(function: FunctionDef) -> bool:
    """Whether it is called as an async function; refuses the colour that it has not.

    A sync function around an async one may have either: who calls it knows.
    """
    on_loop = _on_loop()
    if function.is_async == on_loop or function.wraps_async:
        return on_loop
    name = function.name
    if function.is_async:
        msg = f"{function} is an async function and was called from sync code; write `{name}.run(...)`"
    else:
        msg = f"{function} is a sync function and was called from async code; write `await {name}.run_async(...)`"
    raise WrongColourError(msg)


def plain_call(function: FunctionDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Calls the function itself. Outside a workflow its stream writes are validated and dropped."""
    if current_scope() is not None:
        return function.function(*args, **kwargs)
    if function.is_async:
        return _plain_async(function, args, kwargs)
    with Entered(PlainCall()):
        value = function.function(*args, **kwargs)
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


async def _plain_async(function: FunctionDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    with Entered(PlainCall()):
        return await outcome_of(function.function, *args, **kwargs)


async def _plainly_awaited(value: Awaitable[Any]) -> Any:
    with Entered(PlainCall()):
        return await value


def _async_step(step: StepDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Coroutine[Any, Any, Any]:
    return _named(_scoped_step(step, args, kwargs), step)


def _named(operation: Coroutine[Any, Any, Any], function: FunctionDef) -> Coroutine[Any, Any, Any]:
    """The operation as a coroutine; a task that is made of it is a branch of its own, named after the function."""
    named = cast("CoroutineType[Any, Any, Any]", operation)
    named.__qualname__ = function.name
    return named


async def _scoped_step(step: StepDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    scope = current_scope()
    if not isinstance(scope, Branch):  # carried out of the workflow, or into a step
        return await run_plainly_async(step, args, kwargs)
    return await operations.run_step(scope.run.loop_driver, scope, step, args, kwargs)


def _blocking_step(scope: RunBranch, step: StepDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return drive(operations.run_step(scope.run.thread_driver, scope, step, args, kwargs))


def _on_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _warn_of_lost_context(step: StepDef) -> None:
    """A step on a thread that lost its workflow's context is a plain call."""
    if some_run_here():
        _warn_once(
            step,
            "%s was called outside of any workflow, at %s:%d, while this process runs workflows: it is a plain call "
            "and leaves no record. If it belongs to a workflow, call it from the workflow's own code",
        )


def _warn_of_plain_call(workflow: WorkflowDef) -> None:
    """A workflow that is called like a function where it could run durably looks as if it did."""
    if current_scope() is None and some_engine_is_open():
        _warn_once(
            workflow,
            "%s was called like a function, at %s:%d: it runs at once, here, and leaves no record, though an engine is "
            "open. To run it durably write engine.run(...) or engine.start(...)",
        )


def _warn_once(function: FunctionDef, message: str) -> None:
    """Once for each place in the code that calls it."""
    frame = sys._getframe(4)  # noqa: SLF001 (who called the step or workflow)
    place = (function.name, frame.f_code.co_filename, frame.f_lineno)
    if place not in _warned:
        _warned.add(place)
        logger.warning(message, function, *place[1:])
