"""Starts by name, for programs that have not the code of the workflow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from dbosflow._records.ids import new_id
from dbosflow._records.pins import check_partition_key, check_queue, stored_queue
from dbosflow._records.spaces import check_workflow_id
from dbosflow._store.start_options import checked_dedup, checked_options, checked_units
from dbosflow._store.workflow import Enqueued
from dbosflow.config import DEFAULT_QUEUE, LARGEST_INTEGER, check_identifier, check_version, check_whole, shown
from dbosflow.definitions import check_name
from dbosflow.errors import ConfigurationError, SerializationError
from dbosflow.handles import WorkflowHandle
from dbosflow.registry import registry
from dbosflow.serde import Codec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from dbosflow._runtime.engine.core import EngineCore
    from dbosflow._runtime.process.host import Host
    from dbosflow.attributes import Attribute
    from dbosflow.types import OnDuplicate


class NamedStart(TypedDict, total=False):
    """The options of a start by name.

    Args:
        queue: the queue whose workers run it (default: ``default``).
        workflow_id: the idempotency key, as in ``options(...)`` of a workflow.
        priority: the order within the queue. Lower numbers run first.
        units: how much it takes of the queue's rate.
        inputs: the keys of the inputs that the workflow declares: ``write_stream`` takes no others.
        timeout: how long it may take, in seconds or as a ``timedelta``. That of ``@workflow`` is not known here.
        deadline: the latest moment of its end, timezone-aware.
        delay: how long it waits before it begins, in seconds or as a ``timedelta``.
        run_at: the same with the time itself, timezone-aware.
        attributes: names and plain values by which it can be searched.
        pin_version: the version whose workers alone may run it.
        dedup_key: a key of which the queue has one workflow at a time, as in ``options(...)``.
        on_duplicate: what to do if a workflow has the key.
        replace_within: the longest time for which ``on_duplicate="replace"`` puts a workflow off.
        partition_key: the partition of the queue, as in ``options(...)``.
    """

    queue: str
    workflow_id: str | None
    priority: int
    units: int
    inputs: Sequence[str]
    timeout: float | timedelta | None
    deadline: datetime | None
    delay: float | timedelta | None
    run_at: datetime | None
    attributes: Mapping[str, Attribute] | None
    pin_version: str | None
    dedup_key: str | None
    on_duplicate: OnDuplicate
    replace_within: float | timedelta | None
    partition_key: str | None


class Starts:
    """Starts of workflows by their names."""

    _host: Host
    _core: EngineCore

    def start(
        self, name: str, args: Mapping[str, Any] | None = None, **options: Unpack[NamedStart]
    ) -> WorkflowHandle[Any]:
        """Enqueues a workflow by its name. See ``start_async``, its awaitable twin."""
        return self._host.call("start_async", self._enqueue, _row(name, args, **options))

    async def start_async(
        self, name: str, args: Mapping[str, Any] | None = None, **options: Unpack[NamedStart]
    ) -> WorkflowHandle[Any]:
        """Enqueues a workflow by its name, and returns its handle once that is durable.

        For a program that has not the workflow's code: its result is JSON then. If this process knows the workflow, its
        arguments are checked here. Otherwise the worker that takes it does that, and parks it as blocked if they do not
        fit. A workflow that no worker of its queue knows stays in the queue: ``dbosflow doctor`` says so, and so does
        ``explain``.

        Args:
            name: the name of the workflow: the function's qualified name, or the one given by ``@workflow(name=...)``.
            args: the arguments as JSON values, by the names of the parameters.
            options: ``queue``, ``workflow_id``, ``priority``, ``units``, ``inputs``, ``timeout``, ``deadline``,
                ``delay``, ``run_at``, ``attributes``, ``pin_version``, ``dedup_key``, ``on_duplicate``,
                ``replace_within`` and ``partition_key``; see ``dbosflow.management.starts.NamedStart``.

        Raises:
            ConfigurationError: an argument is not valid.
            SerializationError: JSON cannot carry the arguments, or the workflow, known here, does not take them.
            WorkflowConflictError: the id, or the key, belongs to a workflow of another name.
            DuplicateWorkflowError: a workflow has the key, and ``on_duplicate`` is ``"raise"``.
        """
        return await self._host.bridge(self._enqueue(_row(name, args, **options)))

    async def _enqueue(self, row: Enqueued) -> WorkflowHandle[Any]:
        return WorkflowHandle(self._host, self._core, await self._core.enqueue(row), registry.get(row.name))


def _row(
    name: str,
    args: Mapping[str, Any] | None,
    *,
    queue: str = DEFAULT_QUEUE,
    workflow_id: str | None = None,
    priority: int = 0,
    units: int = 1,
    inputs: Sequence[str] = (),
    timeout: float | timedelta | None = None,
    deadline: datetime | None = None,
    delay: float | timedelta | None = None,
    run_at: datetime | None = None,
    attributes: Mapping[str, Attribute] | None = None,
    pin_version: str | None = None,
    dedup_key: str | None = None,
    on_duplicate: OnDuplicate = "existing",
    replace_within: float | timedelta | None = None,
    partition_key: str | None = None,
) -> Enqueued:
    check_name("workflow", name)
    check_queue(queue)
    check_partition_key(partition_key, queue)
    if pin_version is not None:
        check_version("pin_version", pin_version)
    check_whole("priority", priority, -LARGEST_INTEGER, LARGEST_INTEGER)
    if workflow_id is not None:
        check_workflow_id(workflow_id)
    if isinstance(inputs, str) or not isinstance(inputs, Iterable):
        msg = f"inputs={shown(inputs)} must be a list of keys: inputs=['a key']"
        raise ConfigurationError(msg)
    keys = tuple(dict.fromkeys(check_identifier("stream key", key) for key in inputs))
    optional = checked_options(
        timeout, deadline, attributes, delay=delay, run_at=run_at, units=checked_units(units, queue)
    )
    dedup = checked_dedup(dedup_key, on_duplicate, replace_within, optional)
    text, declared = _arguments(name, args)
    waits_in = stored_queue(queue, pin_version, partition_key)
    return Enqueued(workflow_id or new_id(), name, waits_in, priority, text, keys or declared, optional, dedup=dedup)


def _arguments(name: str, args: object) -> tuple[str, tuple[str, ...]]:
    """The arguments in their stored form; and the inputs that the workflow declares, if it is known here."""
    if args is None:
        args = {}
    if not isinstance(args, Mapping) or not all(isinstance(one, str) for one in args):
        msg = f"args={shown(args)} must be a dictionary of the arguments by the names of the parameters"
        raise ConfigurationError(msg)
    codec: Codec[dict[str, Any]] = Codec(dict[str, Any], f"the arguments of workflow {name!r}")
    text = codec.dump(dict(args))
    definition = registry.get(name)
    if definition is None:
        return text, ()
    try:
        definition.load_arguments(text)
    except SerializationError as error:
        msg = f"workflow {name!r} cannot take these arguments: {error}"
        raise SerializationError(msg) from error
    return text, definition.inputs
