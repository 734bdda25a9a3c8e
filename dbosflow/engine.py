"""The engine: the composition root, and the facade for programs."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from dbosflow._runtime.engine.core import EngineCore
from dbosflow._runtime.execution.scope import current_scope
from dbosflow._runtime.replay.branch import Branch
from dbosflow._runtime.streams.message_writer import check_size
from dbosflow._store.listing import NEWEST, info_of
from dbosflow.config import LARGEST_INTEGER, check_identifier, check_seconds, check_whole
from dbosflow.errors import ConfigurationError, InWorkflowError
from dbosflow.filters import MOST, WorkflowFilter, chosen
from dbosflow.handles import WorkflowHandle
from dbosflow.management.workflows import Workflows
from dbosflow.messages.first import Message, take_message
from dbosflow.queues import Queues
from dbosflow.registry import registry
from dbosflow.schedule_definitions import declared_schedules
from dbosflow.schedules.engine_schedules import Schedules
from dbosflow.workers import EngineWorkers
from dbosflow.workflows import Workflow, WorkflowSpec, spec_of, start_request

if TYPE_CHECKING:
    from dbosflow._runtime.execution.engine_port import HandlePort
    from dbosflow.definitions import WorkflowDef
    from dbosflow.types import Resumption, StepInfo, WorkflowInfo, WorkflowStatus

P = ParamSpec("P")
T = TypeVar("T")


class Engine(EngineWorkers):
    """Durable workflows on one Postgres database.

    ``with Engine(url) as engine`` runs the engine on a thread of its own, ``async with`` on the running loop. The
    database is that of ``url``, else that of ``DBOSFLOW_DATABASE_URL``, else an embedded server in ``data_dir``
    (``./.dbosflow``), which is for development.

    Methods that wait come twice: a blocking one for sync code, and its awaitable twin, whose name ends in ``_async``.
    They raise ``EngineClosedError`` if the engine is not open, and ``DatabaseUnavailableError`` if Postgres does not
    answer within ``connect_timeout``. Blocking ones raise ``BlockingCallError`` on a running event loop. In a
    workflow's body only ``start``, ``run`` and ``handle`` are allowed; the others raise ``InWorkflowError``.

    Args:
        url: a ``postgresql://`` URL, or a libpq connection string.
        executes: whether workflows run in this process. ``False`` makes a client, whose starts are enqueued.
        data_dir: the directory in which an embedded server keeps its data.
        settings: the fields of ``dbosflow.config.Settings``: ``lease=10.0``, ``schema="dbosflow"`` and the like.

    Raises:
        ConfigurationError: a setting is unknown or not valid.
    """

    # -- workflows ---------------------------------------------------------------------------------------------------

    @property
    def workflows(self) -> Workflows:
        """The workflows of this database: listings in pages, forks and retries, and what changes many at a time."""
        return Workflows(self._host, self._core)

    @property
    def queues(self) -> Queues:
        """The queues of this database: their limits, and what they hold."""
        return Queues(self._host, self._core)

    @property
    def schedules(self) -> Schedules:
        """The schedules of this database, by which workflows are started at certain times."""
        return Schedules(self._host, self._core)

    @overload
    def start(self, target: Workflow[P, Any, T], /, *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[T]: ...
    @overload
    def start(self, target: WorkflowSpec[P, T], /, *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[T]: ...
    @overload
    def start(
        self, target: Workflow[..., Any, T] | WorkflowSpec[..., T], /, *args: Any, message: Message, **kwargs: Any
    ) -> WorkflowHandle[T]: ...
    def start(self, target: Any, /, *args: Any, **kwargs: Any) -> WorkflowHandle[Any]:
        """Starts a workflow, and returns its handle as soon as the start is durable.

        The workflow id is the idempotency key. See ``start_async``, its awaitable twin.
        """
        if self._runs_caller:
            return spec_of(target).start(*args, **_without_message(target, kwargs))
        return self._host.call("start_async", self._start, target, args, kwargs)

    @overload
    async def start_async(
        self, target: Workflow[P, Any, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandle[T]: ...
    @overload
    async def start_async(
        self, target: WorkflowSpec[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandle[T]: ...
    @overload
    async def start_async(
        self, target: Workflow[..., Any, T] | WorkflowSpec[..., T], /, *args: Any, message: Message, **kwargs: Any
    ) -> WorkflowHandle[T]: ...
    async def start_async(self, target: Any, /, *args: Any, **kwargs: Any) -> WorkflowHandle[Any]:
        """Starts a workflow, and returns its handle as soon as the start is durable.

        The workflow runs in this process. With ``options(queue=...)``, or from a client, it runs on a worker of the
        queue. The workflow id is the idempotency key: if an execution with the id exists, its handle is returned. In
        the body of a workflow of this engine the new workflow is a child, as with the workflow's own ``start_async``.

        With ``message=Message(topic, value)`` the workflow is started with a message, in one statement; if an execution
        with the id exists, the message is sent to that. Such a workflow runs in any executing engine that has its
        function, mostly in this one. Not in the body of a workflow: start there, then ``send``.

        Args:
            target: the workflow, or its ``options(...)``.
            args: the workflow's positional arguments.
            kwargs: the workflow's keyword arguments; and ``message``, if that is a ``Message``.

        Raises:
            DefinitionError: ``target`` is no workflow.
            ConfigurationError: ``message`` is no ``Message``, and no argument of the workflow either.
            WorkflowEndedError: there is a ``message``, and the execution with the id has ended.
            SerializationError: JSON cannot carry the arguments under their annotations.
            WorkflowConflictError: the id, or the ``dedup_key``, belongs to another workflow function.
            DuplicateWorkflowError: a workflow has the ``dedup_key``, and ``on_duplicate`` is ``"raise"``.
        """
        if self._runs_caller:
            return await spec_of(target).start_async(*args, **_without_message(target, kwargs))
        return await self._host.bridge(self._start(target, args, kwargs))

    @overload
    def run(self, target: Workflow[P, Any, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def run(self, target: WorkflowSpec[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    def run(self, target: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Starts a workflow, waits for its end, and returns its result or raises its error.

        Raises what ``start`` and the handle's ``result`` raise. Its awaitable twin is ``run_async``.
        """
        if self._runs_caller:
            return spec_of(target).start(*args, **kwargs).result()
        return self._host.call("run_async", self._run, target, args, kwargs)

    @overload
    async def run_async(self, target: Workflow[P, Any, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    async def run_async(self, target: WorkflowSpec[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    async def run_async(self, target: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Starts a workflow, waits for its end, and returns its result or raises its error.

        In the body of a workflow of this engine the new workflow is a child. Raises what ``start_async`` and the
        handle's ``result_async`` raise.
        """
        if self._runs_caller:
            return await (await spec_of(target).start_async(*args, **kwargs)).result_async()
        return await self._host.bridge(self._run(target, args, kwargs))

    @overload
    def handle(self, workflow_id: str) -> WorkflowHandle[Any]: ...
    @overload
    def handle(self, workflow_id: str, target: Workflow[..., Any, T]) -> WorkflowHandle[T]: ...
    def handle(self, workflow_id: str, target: Workflow[..., Any, Any] | None = None) -> WorkflowHandle[Any]:
        """A handle to a workflow of any process. Makes no I/O.

        Args:
            workflow_id: the workflow's id.
            target: the workflow function, which gives the handle's result its type; without it the result is JSON.
        """
        check_identifier("workflow id", workflow_id)
        definition = None if target is None else spec_of(target).definition
        return WorkflowHandle(self._host, self._core, workflow_id, definition)

    def list_workflows(
        self,
        which: WorkflowFilter | None = None,
        *,
        status: WorkflowStatus | str | None = None,
        name: str | None = None,
        queue: str | None = None,
        limit: int | None = None,
    ) -> list[WorkflowInfo]:
        """The matching workflows, newest first: ``list_workflows(status="failed", limit=20)``.

        See ``list_workflows_async``, its awaitable twin.
        """
        which = chosen(which, status, name, queue, limit)
        return self._host.call("list_workflows_async", self._listed, which)

    async def list_workflows_async(
        self,
        which: WorkflowFilter | None = None,
        *,
        status: WorkflowStatus | str | None = None,
        name: str | None = None,
        queue: str | None = None,
        limit: int | None = None,
    ) -> list[WorkflowInfo]:
        """The matching workflows, newest first.

        Args:
            which: all criteria in one ``WorkflowFilter``, instead of the following arguments.
            status: the workflow's status.
            name: the name of its function: the qualified name, or the one given by ``@workflow(name=...)``.
            queue: the queue that it waits in or was taken from.
            limit: the maximum number of workflows (100).

        Raises:
            ConfigurationError: a criterion is not valid, or ``which`` is given together with others.
        """
        which = chosen(which, status, name, queue, limit)
        return await self._host.bridge(self._listed(which))

    def resume(self, workflow_id: str) -> Resumption:
        """Lets a blocked workflow go on, and returns what came of it. See ``resume_async``, its awaitable twin."""
        return self._host.call("resume_async", self._core.resume, check_identifier("workflow id", workflow_id))

    async def resume_async(self, workflow_id: str) -> Resumption:
        """Lets a workflow go on that is parked as ``blocked``, and returns what came of it.

        The workflow returns to its queue. A worker that has its function claims it at once and replays it. So first
        deploy code that fits the workflow's records; with the old code it is blocked again. The count of worker deaths
        starts anew. A workflow that is not blocked is left unchanged.

        Raises:
            WorkflowNotFoundError: no workflow has this id.
        """
        return await self._host.bridge(self._core.resume(check_identifier("workflow id", workflow_id)))

    def list_steps(self, workflow_id: str) -> list[StepInfo]:
        """A workflow's records, in the order in which they were made. See ``list_steps_async``, its awaitable twin."""
        check_identifier("workflow id", workflow_id)
        return self._host.call("list_steps_async", self._core.repository.steps, workflow_id)

    async def list_steps_async(self, workflow_id: str) -> list[StepInfo]:
        """A workflow's records, in the order in which they were made; an empty list if no workflow has the id."""
        check_identifier("workflow id", workflow_id)
        return await self._host.bridge(self._core.repository.steps(workflow_id))

    # -- retention ---------------------------------------------------------------------------------------------------

    def prune(self, *, older_than: timedelta | float, batch: int = 100, dry_run: bool = False) -> int:
        """Removes workflows that ended before a given age. See ``prune_async``, its awaitable twin."""
        return self._host.call("prune_async", self._core.repository.prune, *_age(older_than, batch), dry_run)

    async def prune_async(self, *, older_than: timedelta | float, batch: int = 100, dry_run: bool = False) -> int:
        """Removes workflows that ended before a given age, with their records and streams; returns their number.

        Each transaction removes up to ``batch`` workflows, oldest first. A workflow whose parent still runs is kept,
        and so is one that an unfinished fork of it or of its parent may need. So is one as long as a statement or
        snapshot is open in the database that began before the workflow's end, up to a day: it may still write to an
        input. The id of a removed workflow is free: a start with it runs the workflow anew.

        Args:
            older_than: the minimum time since the end, in seconds or as a ``timedelta``.
            batch: the number of workflows to remove in one transaction.
            dry_run: whether to remove nothing, and only return how many would be removed now.

        Raises:
            ConfigurationError: ``older_than`` or ``batch`` is not valid.
        """
        return await self._host.bridge(self._core.repository.prune(*_age(older_than, batch), dry_run))

    # -- inside ------------------------------------------------------------------------------------------------------

    def _new_core(self, url: str) -> EngineCore:
        def make_handle(core: HandlePort, workflow_id: str, definition: WorkflowDef | None) -> WorkflowHandle[Any]:
            return WorkflowHandle(self._host, core, workflow_id, definition)

        return EngineCore(url, self._settings, registry, make_handle, declared_schedules)

    async def _start(self, target: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> WorkflowHandle[Any]:
        message = take_message(spec_of(target).definition, kwargs)
        request = start_request(target, args, kwargs)
        if message is not None:
            if request.dedup is not None:
                msg = "a start with a dedup_key takes no message: send it to the handle that the start returns"
                raise ConfigurationError(msg)
            request.message = first = message.first()
            check_size(self._settings, request.workflow_id or "", first.text)
        return WorkflowHandle(self._host, self._core, await self._core.start(request), request.definition)

    async def _run(self, target: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return await self._core.run(start_request(target, args, kwargs))

    async def _listed(self, which: WorkflowFilter) -> list[WorkflowInfo]:
        """The first workflows of a listing. Those of the same instant are sorted by id, whatever the collation."""
        rows = await self._core.repository.rows(which, NEWEST, MOST if which.limit is None else which.limit)
        return sorted(map(info_of, rows), key=lambda info: (info.created_at, info.id), reverse=True)

    @property
    def _runs_caller(self) -> bool:
        """Whether the caller is the body of a workflow of this engine."""
        scope = current_scope()
        return isinstance(scope, Branch) and scope.run.engine.is_of(self._core)


def _without_message(target: object, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments for a child, which is started by its parent's record: its messages are records of their own."""
    if take_message(spec_of(target).definition, kwargs) is not None:
        msg = "a workflow's body starts no child with a message: start the child, then send(...) the message"
        raise InWorkflowError(msg)
    return kwargs


def _age(older_than: timedelta | float, batch: int) -> tuple[float, int]:
    seconds = older_than.total_seconds() if isinstance(older_than, timedelta) else older_than
    return check_seconds("older_than", seconds), check_whole("batch", batch, 1, LARGEST_INTEGER)
