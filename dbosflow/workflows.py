"""Workflows: functions that survive crashes, since whatever they did durably is on record and handed to them again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import update_wrapper
from types import MethodType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from dbosflow._runtime import calls
from dbosflow._runtime.children import ChildOptions
from dbosflow.config import LARGEST_INTEGER, check_identifier, check_whole
from dbosflow.definitions import WorkflowDef, caller_locals, check_name, qualified_name, registry
from dbosflow.errors import DefinitionError
from dbosflow.streams.declared import key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from dbosflow.handles import WorkflowHandle
    from dbosflow.streams import Stream

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True)
class WorkflowSpec(Generic[P, T]):
    """A workflow with the options of one start. ``engine.start`` takes it like the workflow itself."""

    definition: WorkflowDef
    workflow_id: str | None = None
    queue: str | None = None
    priority: int = 0

    def start(self, *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[T]:
        """Blocking twin of :meth:`start_async`."""
        twin = f"await {self.definition.name}.start_async(...)"
        handle: WorkflowHandle[T] = calls.start_child(self.definition, self._of_child, args, kwargs, twin)
        return handle

    async def start_async(self, *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[T]:
        """Inside a workflow: starts a child with these options, without waiting for it; its handle."""
        handle: WorkflowHandle[T] = await calls.start_child_async(self.definition, self._of_child, args, kwargs)
        return handle

    @property
    def _of_child(self) -> ChildOptions:
        return ChildOptions(self.workflow_id, self.queue, self.priority)


class Workflow(Generic[P, R, T]):
    """A decorated function: ``engine.start(f, ...)`` runs it durably; called outside an engine it is plain."""

    def __init__(self, definition: WorkflowDef) -> None:
        self.definition = definition
        self.spec: WorkflowSpec[P, T] = WorkflowSpec(definition)
        """A start without options."""
        update_wrapper(self, definition.function, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Inside a workflow runs it as a child and gives its result; outside an engine calls the plain function."""
        result: R = calls.call_workflow(self.definition, args, kwargs)
        return result

    def run(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Blocking: runs the workflow as a child, from a sync workflow, whichever colour it has."""
        twin = f"await {self.definition.name}.run_async(...)"
        result: T = calls.run_child(self.definition, args, kwargs, twin)
        return result

    def run_async(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        """Awaitable: runs the workflow as a child, from an async workflow, whichever colour it has."""
        return calls.run_child_async(self.definition, args, kwargs)

    def start(self, *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[T]:
        """Blocking twin of :meth:`start_async`."""
        return self.options().start(*args, **kwargs)

    async def start_async(self, *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[T]:
        """Inside a workflow: starts a child without waiting for it, exactly once; its handle."""
        return await self.options().start_async(*args, **kwargs)

    def options(
        self, *, workflow_id: str | None = None, queue: str | None = None, priority: int = 0
    ) -> WorkflowSpec[P, T]:
        """The options of one start.

        Args:
            workflow_id: the idempotency key: the same id twice is the same execution. Default: a new unique one.
            queue: run it on whichever worker serves this queue, not here.
            priority: among what waits in the queue, lower first.
        """
        if workflow_id is not None:
            check_identifier("workflow id", workflow_id)
        if queue is not None:
            check_identifier("queue", queue)
        check_whole("priority", priority, -LARGEST_INTEGER, LARGEST_INTEGER)
        return WorkflowSpec(self.definition, workflow_id, queue, priority)

    def __get__(self, instance: object, owner: type | None = None) -> Workflow[P, R, T]:
        """A static method is the workflow itself, and so is a class method, which knows its class."""
        if instance is None or isinstance(instance, type):
            return self
        msg = (
            f"{self.definition} is an instance method: a recovered workflow has no instance to go on with. "
            "Make it a function, a static method or a class method"
        )
        raise DefinitionError(msg)

    def __repr__(self) -> str:
        return f"<{self.definition}>"


def spec_of(target: object) -> WorkflowSpec[Any, Any]:
    """What a start was asked for, as a spec."""
    if isinstance(target, MethodType):
        target = target.__func__  # a class method since Python 3.13
    if isinstance(target, Workflow):
        return target.spec
    if isinstance(target, WorkflowSpec):
        return target
    msg = f"{target!r} is no workflow; decorate the function with @workflow"
    raise DefinitionError(msg)


class WorkflowDecorator:
    """What ``@workflow(...)`` gives: decorates with the options."""

    def __init__(self, name: str | None, inputs: Sequence[str | Stream[Any, Any]]) -> None:
        self._name = name
        self._inputs = inputs

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, T]]) -> Workflow[P, Coroutine[Any, Any, T], T]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> Workflow[P, R, R]: ...
    def __call__(self, function: Callable[..., Any]) -> Workflow[..., Any, Any]:
        """Makes ``function`` a workflow."""
        return _make(function, self._name, self._inputs)


@overload
def workflow(function: Callable[P, Coroutine[Any, Any, T]], /) -> Workflow[P, Coroutine[Any, Any, T], T]: ...
@overload
def workflow(function: Callable[P, R], /) -> Workflow[P, R, R]: ...
@overload
def workflow(*, name: str | None = None, inputs: Sequence[str | Stream[Any, Any]] = ()) -> WorkflowDecorator: ...
def workflow(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    inputs: Sequence[str | Stream[Any, Any]] = (),
) -> Any:
    """Makes a function a workflow: any worker that knows it can go on with it after a crash.

    The body must follow from its arguments and records: what is random, timed or read from outside belongs in steps.

    Args:
        function: sync or async; arguments and result must be JSON under their annotations.
        name: in records; the function's qualified name by default. It must be unique among the process's workflows.
        inputs: the streams, or their keys, that are written from outside, with ``engine.write_stream``, and read in the
            body with :func:`~dbosflow.read_input`. They end with the workflow. A start keeps what was declared then.
    """
    if function is None:
        return WorkflowDecorator(name, inputs)
    return _make(function, name, inputs)


def _make(
    function: Callable[..., Any], name: str | None, inputs: Sequence[str | Stream[Any, Any]]
) -> Workflow[..., Any, Any]:
    own_name = check_name("workflow", qualified_name(function) if name is None else name)
    if isinstance(inputs, str):
        msg = f"inputs={inputs!r} must be a list: inputs=[{inputs!r}]"
        raise DefinitionError(msg)
    keys = tuple(dict.fromkeys(key_of(one) for one in inputs))
    definition = WorkflowDef(function, own_name, caller_locals(function, depth=2), inputs=keys)
    registry.add(definition)
    return Workflow(definition)
