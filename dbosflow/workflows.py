"""Workflows: functions that survive crashes, since whatever they did durably is on record and handed to them again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import update_wrapper
from types import MethodType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from dbosflow._runtime.operations import calls
from dbosflow._runtime.operations.children import ChildOptions
from dbosflow.config import LARGEST_INTEGER, check_identifier, check_whole
from dbosflow.definitions import WorkflowDef, caller_locals, check_name, registry
from dbosflow.errors import DefinitionError
from dbosflow.functions import check_decorated, mark_async, qualified_name, reference_to, unbound
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
    receiver: tuple[type, ...] = ()
    """The class that a class method is called on: its first argument."""

    def start(self, *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[T]:
        """Inside a sync workflow: starts a child with these options, without waiting for it; its handle."""
        twin = f"await {self.definition.name}.start_async(...)"
        handle: WorkflowHandle[T] = calls.start_child(
            self.definition, self._of_child, self.receiver + args, kwargs, twin
        )
        return handle

    async def start_async(self, *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[T]:
        """Inside a workflow: starts a child with these options, without waiting for it; its handle."""
        handle: WorkflowHandle[T] = await calls.start_child_async(
            self.definition, self._of_child, self.receiver + args, kwargs
        )
        return handle

    @property
    def _of_child(self) -> ChildOptions:
        return ChildOptions(self.workflow_id, self.queue, self.priority)


class Workflow(Generic[P, R, T]):
    """A decorated function: ``engine.start(f, ...)`` runs it durably; called outside an engine it is plain."""

    def __init__(self, definition: WorkflowDef, receiver: tuple[type, ...] = ()) -> None:
        self.definition = definition
        self._receiver = receiver
        self.spec: WorkflowSpec[P, T] = WorkflowSpec(definition, receiver=receiver)
        """A start without options."""
        update_wrapper(self, definition.function, updated=())
        if definition.is_async:
            mark_async(self, definition.function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Inside a workflow runs it as a child and gives its result; outside an engine calls the plain function."""
        result: R = calls.call_workflow(self.definition, self._receiver + args, kwargs)
        return result

    def run(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Blocking: runs the workflow as a child, from a sync workflow, whichever colour it has."""
        twin = f"await {self.definition.name}.run_async(...)"
        result: T = calls.run_child(self.definition, self._receiver + args, kwargs, twin)
        return result

    def run_async(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        """Awaitable: runs the workflow as a child, from an async workflow, whichever colour it has."""
        return calls.run_child_async(self.definition, self._receiver + args, kwargs)

    def start(self, *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[T]:
        """Inside a sync workflow: starts a child without waiting for it, exactly once; its handle."""
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
        return WorkflowSpec(self.definition, workflow_id, queue, priority, self._receiver)

    def __get__(self, instance: object, owner: type | None = None) -> Workflow[P, R, T]:
        """A static method is the workflow itself; a class method takes its class along, which the records name."""
        method = self.definition.method
        if self._receiver or method is staticmethod:
            return self
        if method is classmethod:
            return Workflow(self.definition, (owner or type(instance),))
        if instance is None:
            return self
        if isinstance(instance, type) and instance is owner:  # so ``classmethod`` asks before Python 3.13
            return Workflow(self.definition, (instance,))
        msg = (
            f"{self.definition} is an instance method: a recovered workflow has no instance to go on with. "
            "Make it a function, a static method or a class method"
        )
        raise DefinitionError(msg)

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickled by reference, as the function that it stands for would be: by its name, or as a bound method."""
        return reference_to(self, self._receiver)

    def __repr__(self) -> str:
        return f"<{self.definition}>"


def spec_of(target: object) -> WorkflowSpec[Any, Any]:
    """What a start was asked for, as a spec."""
    if isinstance(target, MethodType) and isinstance(target.__func__, Workflow):  # a class method since Python 3.13
        kind: Any = target.__self__
        target = target.__func__.__get__(kind, kind)
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
        function: sync or async, or a static or class method; arguments and result must be JSON under their annotations.
        name: in records; the function's qualified name by default. It must be unique among the process's workflows.
        inputs: the streams, or their keys, that are written from outside, with ``engine.write_stream``, and read in the
            body with ``read_input``. They end with the workflow. A start keeps what was declared then.

    Raises:
        DefinitionError: it is no function that could be a workflow: a class, a generator function, one that is
            decorated already; or another function has the name.
        ConfigurationError: an option cannot be what it is.
    """
    if function is None:
        return WorkflowDecorator(name, inputs)
    return _make(function, name, inputs)


def _make(decorated: Any, name: str | None, inputs: Sequence[str | Stream[Any, Any]]) -> Workflow[..., Any, Any]:
    function, method = unbound(decorated)
    check_decorated("workflow", function)
    own_name = check_name("workflow", qualified_name(function) if name is None else name)
    if isinstance(inputs, str) or not isinstance(inputs, Iterable):
        msg = f"inputs={inputs!r} must be a list: inputs=[{inputs!r}]"
        raise DefinitionError(msg)
    keys = tuple(dict.fromkeys(key_of(one) for one in inputs))
    definition = WorkflowDef(function, own_name, caller_locals(function, depth=2), method, inputs=keys)
    registry.add(definition)
    return Workflow(definition)
