"""The engine's methods for a user's own transaction: starts and messages that are committed with the user's rows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from dbosflow._records.ids import new_id
from dbosflow._records.producers import of_idempotency_key
from dbosflow._records.spaces import check_topic, check_workflow_id, inbox_key
from dbosflow._runtime.engine import starts
from dbosflow._runtime.execution.scope import refuse_in_body
from dbosflow._runtime.process.host import refuse_on_loop
from dbosflow._runtime.streams.message_writer import check_size
from dbosflow._store import outbox
from dbosflow._store.notify import ALARM_TOPIC, OUTBOX_TOPIC, hint, queue_topic
from dbosflow._store.outbox import keyed_item
from dbosflow._store.start_options import NO_OPTIONS
from dbosflow._store.workflow import keys_text
from dbosflow.errors import ConfigurationError, WrongDatabaseError
from dbosflow.handles import WorkflowHandle
from dbosflow.messages.engine_messages import EngineMessages
from dbosflow.messages.first import Message
from dbosflow.messages.sending import MESSAGE
from dbosflow.outbox.connections import async_connection_of, connection_of, explained
from dbosflow.serde import dump_undeclared
from dbosflow.streams.inputs import check_idempotency_key
from dbosflow.workflows import Workflow, WorkflowSpec, start_request

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dbosflow._store.outbox import Identity
    from dbosflow._store.workflow import Enqueued
    from dbosflow.config import Settings
    from dbosflow.outbox.connections import Row

P = ParamSpec("P")
T = TypeVar("T")


class Insert:
    """One row that is to be written on the user's connection, and the topics of the hints that it is there."""

    def __init__(self, statement: str, topics: list[str], *, notify: bool, **values: Any) -> None:
        self.statement = statement
        self.topics = topics
        self.notify = notify
        self.values = dict.fromkeys(_COLUMNS) | values

    def text(self, schema: str, database: Identity) -> str:
        """The statement, for the engine's database."""
        return outbox.insert(self.statement, schema, database, notify=self.notify)

    def values_for(self, schema: str, database: Identity) -> Mapping[str, Any]:
        """The values of all parameters of the statement."""
        channel, payload = hint(schema, self.topics[0]) if self.notify else (None, None)
        return {**self.values, "database": str(database), "channel": channel, "hint": payload}


def insert_all(statement: str, items: Sequence[str], *, notify: bool, topics: Iterable[str] = ()) -> Insert:
    """The rows of several starts, each given as JSON."""
    return Insert(statement, [*topics] or [OUTBOX_TOPIC], notify=notify, items=f"[{','.join(items)}]")


def sealed(row: Enqueued, settings: Settings) -> Enqueued:
    """A start with its arguments as they are stored."""
    return replace(row, input=settings.chain.seal(row.input))


_COLUMNS = (
    *("workflow_id", "name", "queue", "priority", "input_streams", "timeout", "deadline", "delay", "run_at"),
    *("max_recoveries", "units", "attributes", "key", "producer", "payload"),
)


class EngineOutbox(EngineMessages):
    """What takes part in a user's own transaction."""

    @overload
    def start_in(
        self, connection: Any, target: Workflow[P, Any, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandle[T]: ...
    @overload
    def start_in(
        self, connection: Any, target: WorkflowSpec[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandle[T]: ...
    @overload
    def start_in(
        self,
        connection: Any,
        target: Workflow[..., Any, T] | WorkflowSpec[..., T],
        /,
        *args: Any,
        notify: bool,
        **kwargs: Any,
    ) -> WorkflowHandle[T]: ...
    def start_in(self, connection: Any, target: Any, /, *args: Any, **kwargs: Any) -> WorkflowHandle[Any]:
        """Starts a workflow in the transaction of a connection: it runs if that commits, and never was if it does not.

        See ``start_in_async``, its twin for connections of asyncio, for what is guaranteed, and for the errors. The
        connection is one of psycopg, or a cursor of it; a ``Connection`` or ``Session`` of SQLAlchemy; or Django's
        ``connection``.
        """
        refuse_on_loop("start_in_async")
        insert, handle = self._to_start(target, args, kwargs)
        self._write_in("start_in_async", connection, insert)
        return handle

    @overload
    async def start_in_async(
        self, connection: Any, target: Workflow[P, Any, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandle[T]: ...
    @overload
    async def start_in_async(
        self, connection: Any, target: WorkflowSpec[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandle[T]: ...
    @overload
    async def start_in_async(
        self,
        connection: Any,
        target: Workflow[..., Any, T] | WorkflowSpec[..., T],
        /,
        *args: Any,
        notify: bool,
        **kwargs: Any,
    ) -> WorkflowHandle[T]: ...
    async def start_in_async(self, connection: Any, target: Any, /, *args: Any, **kwargs: Any) -> WorkflowHandle[Any]:
        """Starts a workflow in the transaction of a connection: it runs if that commits, and never was if it does not.

        Only a row is written, for which nobody else waits, however long the transaction stays open. After the commit
        a worker takes the workflow: of the queue, or any executing engine, mostly this one. This engine looks for the
        commit itself, and finds it within 20 ms, or a fifth of the time that the transaction was open. If it dies
        meanwhile, the workflow runs all the same, a little later.

        The handle has the workflow's id. It is of use after the commit: before, there is no such workflow for anybody
        else. Under an id that is given in ``options(workflow_id=...)`` an execution may exist already; then nothing is
        started. Messages are sent to the new workflow by ``send_in``, in the same transaction.

        In a step, or in the function of a ``@transaction`` on its connection: allowed. In the latter the start is
        committed with the step's record, exactly once. The new workflow is no child.

        Args:
            connection: a connection or cursor of psycopg for asyncio, or an ``AsyncConnection`` or ``AsyncSession`` of
                SQLAlchemy, to the engine's database, in a transaction or about to begin one.
            target: the workflow, or its ``options(...)``. A ``timeout`` counts from this call.
            args: the workflow's positional arguments.
            kwargs: the workflow's keyword arguments; and ``notify=True``, unless the workflow has a parameter of that
                name: other processes are notified in the instant of the commit. For that the commit takes a lock of the
                whole server, so do not use it where many commit at a time.

        With a ``dedup_key`` a row of the outbox is written, too, and the key decides after the commit, about starts of
        one key in the order in which they were asked for. The handle is of use only if that has made a new workflow. A
        start with ``on_duplicate="raise"`` that finds another workflow is dropped, with a warning in the log.

        Raises:
            NoTransactionError: the connection is in autocommit, closed, or its transaction has failed.
            WrongDatabaseError: it leads to another database than the engine's.
            PermissionDeniedError: its role lacks the rights of a client.
            SerializationError: JSON cannot carry the arguments under their annotations.
            ConfigurationError: it is no connection that is known here, or a blocking one.
            InWorkflowError: the caller is the body of a workflow, which would start it again at each replay.
        """
        insert, handle = self._to_start(target, args, kwargs)
        await self._write_in_async(connection, insert)
        return handle

    def send_in(
        self,
        connection: Any,
        workflow_id: str,
        value: Any,
        topic: str = "",
        *,
        idempotency_key: str | None = None,
        notify: bool = False,
    ) -> None:
        """Sends a message in the transaction of a connection: once if that commits, and never if it does not.

        See ``send_in_async``, its twin for connections of asyncio, for what is guaranteed, and for the errors.
        """
        refuse_on_loop("send_in_async")
        insert = self._to_send(workflow_id, value, topic, idempotency_key, notify=notify)
        self._write_in("send_in_async", connection, insert)

    async def send_in_async(
        self,
        connection: Any,
        workflow_id: str,
        value: Any,
        topic: str = "",
        *,
        idempotency_key: str | None = None,
        notify: bool = False,
    ) -> None:
        """Sends a message in the transaction of a connection: once if that commits, and never if it does not.

        Only a row is written, for which nobody else waits. After the commit an executing engine sends the message, so
        there must be one. Messages to one workflow that were committed one after the other are sent in that order, if
        one process has sent them; and so are those of one transaction, behind its ``start_in`` of the workflow.

        Nobody is there any more who could be told that the workflow has ended by then, or that there is none: such a
        message is dropped, with a warning in the log. While the inbox is full, the message waits.

        Args:
            connection: as for ``start_in_async``.
            workflow_id: the workflow that receives the message.
            value: a value that JSON can carry as one of its class.
            topic: the topic, as for ``send``.
            idempotency_key: as for ``send``.
            notify: as for ``start_in_async``.

        Raises:
            DbosflowError: what ``start_in_async`` raises.
            MessageTooLargeError: the message is above this engine's ``message_bytes``.
            ConfigurationError: the workflow id, topic or idempotency key is not valid.
        """
        await self._write_in_async(connection, self._to_send(workflow_id, value, topic, idempotency_key, notify=notify))

    # -- inside ------------------------------------------------------------------------------------------------------

    def _to_start(
        self, target: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Insert, WorkflowHandle[Any]]:
        refuse_in_body()
        if isinstance(kwargs.get("message"), Message):
            msg = (
                "start_in takes no message: send it in the same transaction, by send_in(connection, handle.workflow_id)"
            )
            raise ConfigurationError(msg)
        request = start_request(target, args, kwargs)
        definition, settings = request.definition, self._settings
        notify = False
        if "notify" in kwargs and not definition.takes("notify"):
            notify = bool(kwargs.pop("notify"))
        request.decide_version(settings.version)
        if request.dedup is not None:
            row = starts.row_of(request, settings)
            insert = insert_all("put_keyed", [keyed_item(sealed(row, settings))], notify=notify)
            return insert, WorkflowHandle(self._host, self._core, row.workflow_id, definition)
        here = request.queue is None and settings.executes
        queue = request.recovery_queue if here else request.stored_queue
        is_new = request.workflow_id is None
        workflow_id = request.workflow_id or new_id()
        options = request.options or NO_OPTIONS
        urgent = [ALARM_TOPIC] if options.is_urgent(settings.safety_poll) else []
        insert = Insert(
            "start" if is_new else "put",
            [queue_topic(queue), *urgent] if is_new else [OUTBOX_TOPIC],
            notify=notify,
            workflow_id=workflow_id,
            name=definition.name,
            queue=queue,
            priority=request.priority,
            input_streams=keys_text(definition.inputs),
            timeout=options.timeout,
            deadline=options.deadline,
            delay=options.delay,
            run_at=options.run_at,
            max_recoveries=options.max_recoveries,
            units=options.units,
            attributes=options.attributes,
            payload=settings.chain.seal(request.arguments_text()),
        )
        return insert, WorkflowHandle(self._host, self._core, workflow_id, definition)

    def _to_send(
        self, workflow_id: str, value: object, topic: str, idempotency_key: str | None, *, notify: bool
    ) -> Insert:
        refuse_in_body()
        check_workflow_id(workflow_id)
        once, text = check_idempotency_key(idempotency_key), dump_undeclared(value, MESSAGE)
        check_size(self._settings, workflow_id, text)
        return Insert(
            "put",
            [OUTBOX_TOPIC],
            notify=notify,
            workflow_id=workflow_id,
            key=inbox_key(check_topic(topic)),
            producer=None if once is None else of_idempotency_key(once),
            payload=self._settings.chain.seal(text),
        )

    def _write_in(self, twin: str, connection: object, insert: Insert) -> None:
        taker, schema, transactions = connection_of(connection), self._settings.schema, self._core.transactions
        known = transactions.identity or self._host.call(twin, transactions.find_identity)
        row = self._fetch(taker, insert, known)
        if not _is_here(row):
            now = self._host.call(twin, transactions.find_identity)
            row = row if now == known else self._fetch(taker, insert, now)
        self._have_written(row, insert, schema)

    def _fetch(self, taker: Any, insert: Insert, database: Identity) -> Row | None:
        schema = self._settings.schema
        try:
            row: Row | None = taker.fetch(insert.text(schema, database), insert.values_for(schema, database))
        except Exception as error:
            if (better := explained(error, schema)) is not None:
                raise better from error
            raise
        return row

    async def _write_in_async(self, connection: object, insert: Insert) -> None:
        taker, schema, transactions = async_connection_of(connection), self._settings.schema, self._core.transactions
        known = transactions.identity
        if known is None:
            known = await self._host.bridge(transactions.find_identity())
        row = await self._fetch_async(taker, insert, known)
        if not _is_here(row):
            now = await self._host.bridge(transactions.find_identity())
            row = row if now == known else await self._fetch_async(taker, insert, now)
        self._have_written(row, insert, schema)

    async def _fetch_async(self, taker: Any, insert: Insert, database: Identity) -> Row | None:
        schema = self._settings.schema
        try:
            row: Row | None = await taker.fetch(insert.text(schema, database), insert.values_for(schema, database))
        except Exception as error:
            if (better := explained(error, schema)) is not None:
                raise better from error
            raise
        return row

    def _have_written(self, row: Row | None, insert: Insert, schema: str) -> None:
        if row is None or not _is_here(row):
            msg = (
                f"the connection leads to another database than the engine's (schema {schema!r}): a transaction spans "
                "one. Open an engine on that database, or use a connection to this one"
            )
            raise WrongDatabaseError(msg)
        self._core.transactions.expect(row[1], insert.topics)


def _is_here(row: Row | None) -> bool:
    return row is not None and bool(row[0])
