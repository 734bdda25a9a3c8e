"""Workflows: functions that survive crashes, because all their durable work is on record and is replayed from there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import update_wrapper
from types import MethodType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from dbosflow._records.pins import check_partition_key, check_queue
from dbosflow._records.spaces import check_workflow_id
from dbosflow._runtime.operations import calls
from dbosflow._store.start_options import checked_dedup, checked_options, checked_units
from dbosflow.config import LARGEST_INTEGER, check_duration, check_version, check_whole, shown
from dbosflow.definitions import WorkflowDef, check_name
from dbosflow.errors import DefinitionError
from dbosflow.functions import caller_locals, check_decorated, mark_async, qualified_name, reference_to, unbound
from dbosflow.registry import registry
from dbosflow.specs import WorkflowSpec as WorkflowSpec  # noqa: PLC0414 (users import it from here)
from dbosflow.streams.declared import key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from datetime import datetime, timedelta

    from dbosflow._runtime.runs.start_request import StartRequest
    from dbosflow.attributes import Attribute
    from dbosflow.handles import WorkflowHandle
    from dbosflow.streams import Stream
    from dbosflow.types import OnDuplicate

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Workflow(Generic[P, R, T]):
    """A function decorated with ``@workflow``.

    ``engine.start(f, ...)`` and ``engine.run(f, ...)`` run the workflow durably. Inside another workflow, a call of
    ``f`` runs it as a child. Anywhere else a call is a plain call of the function.
    """

    def __init__(self, definition: WorkflowDef, receiver: tuple[type, ...] = ()) -> None:
        self.definition = definition
        self._receiver = receiver
        self.spec: WorkflowSpec[P, T] = WorkflowSpec(definition, receiver=receiver)
        """The spec of a start without options."""
        update_wrapper(self, definition.function, updated=())
        if definition.is_async:
            mark_async(self, definition.function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls the workflow: as a child inside a workflow, and as the plain function outside an engine.

        Raises:
            Exception: the exception of the child, or the other errors of a handle's ``result``.
            WrongColourError: the caller is a sync workflow and this one is async, or the reverse. Use ``run`` or
                ``run_async``.
            DefinitionError: the caller is a step.
            BranchError: the caller is no branch of its workflow.
        """
        result: R = calls.call_workflow(self.definition, self._receiver + args, kwargs)
        return result

    def run(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs the workflow as a child of a sync workflow, whether it is sync or async itself, and returns its result.

        Outside an engine it runs the plain function. Its awaitable twin is ``run_async``.

        Raises:
            Exception: the exception of the child, or the other errors of a handle's ``result``.
            DefinitionError: the caller is a step.
            BranchError: the caller is no branch of its workflow.
            BlockingCallError: an event loop runs in the calling thread.
        """
        twin = f"await {self.definition.name}.run_async(...)"
        result: T = calls.run_child(self.definition, self._receiver + args, kwargs, twin)
        return result

    def run_async(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        """Runs the workflow as a child of an async workflow, whether it is async or sync itself.

        The result is a coroutine: await it, or make a task of it. Raises what ``run`` raises.
        """
        return calls.run_child_async(self.definition, self._receiver + args, kwargs)

    def start(self, *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[T]:
        """Inside a sync workflow: starts a child exactly once and returns its handle, without waiting for its end.

        See ``start_async``, its awaitable twin, for the errors.
        """
        return self.options().start(*args, **kwargs)

    async def start_async(self, *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[T]:
        """Inside a workflow: starts a child exactly once and returns its handle, without waiting for its end.

        Raises:
            NotInWorkflowError: the caller is not in a workflow. Use ``engine.start_async`` there.
            DefinitionError: the caller is a step.
            BranchError: the caller is no branch of its workflow.
            SerializationError: JSON cannot carry the arguments under their annotations.
            WorkflowConflictError: the workflow id belongs to another workflow function.
        """
        return await self.options().start_async(*args, **kwargs)

    def options(
        self,
        *,
        workflow_id: str | None = None,
        queue: str | None = None,
        priority: int = 0,
        units: int = 1,
        timeout: float | timedelta | None = None,
        deadline: datetime | None = None,
        delay: float | timedelta | None = None,
        run_at: datetime | None = None,
        attributes: Mapping[str, Attribute] | None = None,
        pin_version: bool | str | None = None,
        dedup_key: str | None = None,
        on_duplicate: OnDuplicate = "existing",
        replace_within: float | timedelta | None = None,
        partition_key: str | None = None,
    ) -> WorkflowSpec[P, T]:
        """Sets options for one start: ``engine.start(f.options(queue="mail"), ...)``.

        Args:
            workflow_id: the idempotency key: a second start with the same id gives the existing execution. Default: a
                new unique id.
            queue: the queue whose workers run the workflow, instead of this process.
            priority: the order within the queue. Lower numbers run first.
            units: how much it takes of the rate of the queue when it begins, such as an estimate of tokens:
                ``current().use`` corrects it. A queue without a rate does not ask for it; more than 1 need a queue.
            timeout: how long the workflow may take from its start, or from its enqueueing, in seconds or as a
                ``timedelta``, however often it is interrupted. It replaces the ``timeout`` of ``@workflow``. A workflow
                that has not ended by then is ended like a cancelled one, and fails with ``WorkflowTimeoutError``.
            deadline: the latest moment of its end, a ``datetime`` with a timezone. Of ``timeout``, ``deadline`` and the
                deadline of the workflow that starts it, the earliest counts.
            delay: how long the workflow waits before it begins, in seconds or as a ``timedelta``, by the database's
                clock. It survives everything, costs nothing while it waits (status ``scheduled``), and can
                be cancelled. ``timeout`` counts from then on. Without a queue, any process that executes workflows
                takes it then.
            run_at: the same, with the time itself: a ``datetime`` with a timezone. If it has passed, it begins at once.
            attributes: names and plain values (a text, a whole number, true or false) by which the workflow can be
                searched: see ``WorkflowFilter`` and ``engine.workflows.update_attributes``.
            pin_version: the version whose workers alone may run the workflow, because its records may not fit other
                code: ``True`` for that of the engine that starts it, or a name. Default: not pinned; a child is pinned
                like its parent, but for ``False``.
            dedup_key: a key of which the queue has one workflow at a time that has not ended. Not for children.
            on_duplicate: what to do if a workflow has the key: ``"existing"`` returns its handle, ``"raise"`` raises a
                ``DuplicateWorkflowError``; ``"replace"`` gives it the new arguments, options and time if it has not
                begun, else starts a new one beside it; ``"cancel_running"`` does the same before it has begun, else
                cancels it, and the new one begins when it is over. See docs/starts.md.
            replace_within: with ``"replace"`` and a ``delay`` or ``run_at``: how long it is put off at most, from its
                first start on, in seconds or as a ``timedelta``.
            partition_key: whose work it is, such as a tenant's name: the queue serves its partitions in turn, and may
                limit each (``Queue(partition_concurrency=...)``). ``priority`` is the order within the partition.

        Raises:
            ConfigurationError: an option is not valid.
        """
        if workflow_id is not None:
            check_workflow_id(workflow_id)
        if queue is not None:
            check_queue(queue)
        check_partition_key(partition_key, queue)
        if not isinstance(pin_version, bool | None):
            check_version("pin_version", pin_version)
        check_whole("priority", priority, -LARGEST_INTEGER, LARGEST_INTEGER)
        optional = checked_options(
            timeout, deadline, attributes, delay=delay, run_at=run_at, units=checked_units(units, queue)
        )
        return WorkflowSpec(
            *(self.definition, workflow_id, queue, priority, self._receiver),
            optional=optional,
            pin=pin_version,
            dedup=checked_dedup(dedup_key, on_duplicate, replace_within, optional),
            partition_key=partition_key,
        )

    def __get__(self, instance: object, owner: type | None = None) -> Workflow[P, R, T]:
        """Binds a class method to its class, which goes on record. A static method is the workflow itself."""
        method = self.definition.method
        if self._receiver or method is staticmethod:
            return self
        if method is classmethod:
            return Workflow(self.definition, (owner or type(instance),))
        if instance is None:
            return self
        if isinstance(instance, type) and instance is owner:  # how ``classmethod`` calls this before Python 3.13
            return Workflow(self.definition, (instance,))
        msg = (
            f"{self.definition} is an instance method: a recovered workflow has no instance to go on with. "
            "Make it a function, a static method or a class method"
        )
        raise DefinitionError(msg)

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickles the workflow by reference, like the function: by its name, or as a bound method."""
        return reference_to(self, self._receiver)

    def __repr__(self) -> str:
        return f"<{self.definition}>"


def spec_of(target: object) -> WorkflowSpec[Any, Any]:
    """The spec of a start's target, which is a workflow or a spec."""
    if isinstance(target, MethodType) and isinstance(target.__func__, Workflow):  # a class method since Python 3.13
        kind: Any = target.__self__
        target = target.__func__.__get__(kind, kind)
    if isinstance(target, Workflow):
        return target.spec
    if isinstance(target, WorkflowSpec):
        return target
    msg = f"{shown(target)} is no workflow; decorate the function with @workflow"
    raise DefinitionError(msg)


def start_request(target: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> StartRequest:
    """The request for a start of a workflow, or of a spec with its options, with these arguments."""
    return spec_of(target).request(args, kwargs)


@dataclass(frozen=True)
class _Options:
    """The options of ``@workflow``."""

    name: str | None = None
    inputs: Sequence[str | Stream[Any, Any]] = ()
    timeout: float | timedelta | None = None
    max_recoveries: int | None = None
    compensates: bool = False
    compensation_timeout: float | timedelta | None = None


class WorkflowDecorator:
    """The result of ``@workflow(...)``: a decorator that has the options."""

    def __init__(self, options: _Options) -> None:
        self._options = options

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, T]]) -> Workflow[P, Coroutine[Any, Any, T], T]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> Workflow[P, R, R]: ...
    def __call__(self, function: Callable[..., Any]) -> Workflow[..., Any, Any]:
        """Makes ``function`` a workflow."""
        return _make(function, self._options)


@overload
def workflow(function: Callable[P, Coroutine[Any, Any, T]], /) -> Workflow[P, Coroutine[Any, Any, T], T]: ...
@overload
def workflow(function: Callable[P, R], /) -> Workflow[P, R, R]: ...
@overload
def workflow(
    *,
    name: str | None = None,
    inputs: Sequence[str | Stream[Any, Any]] = (),
    timeout: float | timedelta | None = None,
    max_recoveries: int | None = None,
    compensates: bool = False,
    compensation_timeout: float | timedelta | None = None,
) -> WorkflowDecorator: ...
def workflow(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    inputs: Sequence[str | Stream[Any, Any]] = (),
    timeout: float | timedelta | None = None,
    max_recoveries: int | None = None,
    compensates: bool = False,
    compensation_timeout: float | timedelta | None = None,
) -> Any:
    """Makes a function a workflow. Any worker that has the function can go on with it after a crash.

    The body must be deterministic: what it does may only depend on its arguments and on recorded outcomes. Reads
    from outside belong in steps; the time, ids and random numbers come from ``dbosflow.durable``.

    Args:
        function: a sync or async function, or a static or class method. JSON must be able to carry the arguments and
            the result under their annotations.
        name: the name in records. Default: the function's qualified name. It must be unique in the process.
        inputs: the streams, or their keys, that are written from outside with ``engine.write_stream`` and read in the
            body with ``read_input``. They end with the workflow. An execution keeps the inputs declared at its start.
        timeout: how long each execution may take from its start, unless a start says otherwise: see ``options``.
        max_recoveries: how often in a row its workers may die without a new record of it, before it is parked as
            ``blocked``. An execution keeps that of its start. Default: the engine's setting of that name.
        compensates: whether the body calls ``compensate``. A worker that takes over a cancelled workflow then calls its
            body again, up to the point where it was cancelled, to find what there is to undo.
        compensation_timeout: how long the compensations of an execution may take together, in seconds or as a
            ``timedelta``; default: as long as they take. What is not done by then is named in a note of the workflow's
            error.

    Raises:
        DefinitionError: the function cannot be a workflow (it is a class, a generator function, or decorated already),
            or another function has the name.
        ConfigurationError: an option is not valid.
    """
    options = _Options(name, inputs, timeout, max_recoveries, compensates, compensation_timeout)
    return WorkflowDecorator(options) if function is None else _make(function, options)


def _make(decorated: Any, options: _Options) -> Workflow[..., Any, Any]:
    function, method = unbound(decorated)
    check_decorated("workflow", function)
    name, inputs = options.name, options.inputs
    own_name = check_name("workflow", qualified_name(function) if name is None else name)
    if isinstance(inputs, str) or not isinstance(inputs, Iterable):
        msg = f"inputs={inputs!r} must be a list: inputs=[{inputs!r}]"
        raise DefinitionError(msg)
    if options.max_recoveries is not None:
        check_whole("a workflow's max_recoveries", options.max_recoveries, 1, LARGEST_INTEGER, or_none=True)
    if options.compensation_timeout is not None and not options.compensates:
        msg = "compensation_timeout= is for a workflow that compensates: add compensates=True"
        raise DefinitionError(msg)
    keys = tuple(dict.fromkeys(key_of(one) for one in inputs))
    definition = WorkflowDef(
        *(function, own_name, caller_locals(function, depth=2), method),
        inputs=keys,
        timeout=_duration("timeout", options.timeout),
        compensates=options.compensates,
        compensation_timeout=_duration("compensation_timeout", options.compensation_timeout),
        max_recoveries=options.max_recoveries,
    )
    registry.add(definition)
    return Workflow(definition)


def _duration(what: str, value: float | timedelta | None) -> float | None:
    return None if value is None else check_duration(what, value)
