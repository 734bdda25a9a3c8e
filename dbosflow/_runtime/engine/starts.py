"""How a workflow is started: here, or through a queue; once, however often the same id is requested."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from dbosflow._records.ids import new_id
from dbosflow._records.spaces import topic_of
from dbosflow._runtime.execution.launch import Launch
from dbosflow._runtime.execution.scope import lending_place
from dbosflow._runtime.operations.children import result_of
from dbosflow._store import worker, workflow
from dbosflow._store.notify import ALARM_TOPIC, queue_topic, workflow_topic
from dbosflow._store.workflow import Enqueued
from dbosflow.errors import OutdatedWorkersError, WorkflowConflictError, WorkflowNotFoundError
from dbosflow.unreadable import Unreadable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from dbosflow._runtime.engine.executor import Executor
    from dbosflow._runtime.journal.owner import Announce
    from dbosflow._runtime.queues.deduplicator import Deduplicator
    from dbosflow._runtime.queues.enqueuer import Enqueuer
    from dbosflow._runtime.repository import Repository
    from dbosflow._runtime.runs.entries import Ending
    from dbosflow._runtime.runs.start_request import StartRequest
    from dbosflow._store.workflow import FirstMessage, Outcome, Started
    from dbosflow.config import Settings

logger = logging.getLogger("dbosflow.engine")

CANCELS_RUNNING_SINCE = "0.1.0"
"""The first version whose workers leave a workflow alone that waits for the end of the one before."""


class Starts:
    """The starts of one engine."""

    def __init__(
        self,
        executor: Executor | None,
        enqueuer: Enqueuer,
        repository: Repository,
        announce: Announce,
        outcome: Callable[[str], Awaitable[Ending | Outcome]],
        *,
        deduplicator: Deduplicator,
        send: Callable[[str, str, str, str], Awaitable[int]],
        settings: Settings,
    ) -> None:
        self._executor = executor
        self._settings = settings
        self._safety_poll = settings.safety_poll
        self._version = settings.version
        self._enqueuer = enqueuer
        self._deduplicator = deduplicator
        self._repository = repository
        self._announce = announce
        self._outcome = outcome
        self._send = send

    async def start(self, request: StartRequest) -> str:
        """Starts a workflow here, or enqueues it; returns its id once it is durable."""
        request.decide_version(self._version)
        if request.dedup is not None:
            return await self._deduplicated(row_of(request, self._settings))
        if request.message is not None:
            return await self._signal(request, request.message)
        definition = request.definition
        arguments_text = request.arguments_text()
        has_new_id = request.workflow_id is None
        workflow_id = request.workflow_id or new_id()
        here = self._executor is not None and request.is_for(self._version)
        if self._executor is not None and here and not request.is_scheduled:
            launch = Launch.of_start(workflow_id, request, arguments_text)
            is_new = await self._executor.start(launch, request)
            topics = [] if has_new_id else [workflow_topic(workflow_id)]
            if is_new or await self._is_open(workflow_id, definition.name, arguments_text):
                self._announce(topics)
        else:
            # Without a queue, any executing engine takes it when its time comes, as it takes one whose worker has died.
            queue = request.recovery_queue if here else request.stored_queue
            await self._enqueue(_queued(workflow_id, request, queue, arguments_text), has_new_id=has_new_id)
        return workflow_id

    async def enqueue(self, row: Enqueued) -> str:
        """Enqueues a workflow, whose code may be unknown here; returns its id once it is durable."""
        if row.dedup is not None:
            return await self._deduplicated(row)
        await self._enqueue(row)
        return row.workflow_id

    async def start_all(self, rows: Sequence[Enqueued]) -> list[str]:
        """Enqueues workflows, those without keys in one statement; returns, in order, the id to which each has led."""
        led_to = {row.workflow_id: row.workflow_id for row in rows}
        plain = [row for row in rows if row.dedup is None]
        if plain:
            new = await self._repository.ask(workflow.enqueue, plain)
            topics = {queue_topic(row.queue) for row in plain}
            if any(row.options is not None and row.options.is_urgent(self._safety_poll) for row in plain):
                topics.add(ALARM_TOPIC)
            self._announce(topics)
            await self._check_known([row for row in plain if row.workflow_id not in new])
        keyed = [row for row in rows if row.dedup is not None]
        answers = await asyncio.gather(*map(self._deduplicated, keyed), return_exceptions=True)
        for row, answer in zip(keyed, answers, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            led_to[row.workflow_id] = answer
        return [led_to[row.workflow_id] for row in rows]

    async def _check_known(self, rows: Sequence[Enqueued]) -> None:
        """Raises if an id that was taken belongs to another workflow."""
        found = await self._repository.ask(workflow.started, [row.workflow_id for row in rows]) if rows else {}
        for row in rows:
            if (known := found.get(row.workflow_id)) is not None:
                check_same(known, row.name, row.input)

    async def _deduplicated(self, row: Enqueued) -> str:
        """Starts a workflow unless its key says otherwise; returns the id of that to which the start has led."""
        if row.dedup is not None and row.dedup.policy == "cancel_running":
            outdated = await self._repository.ask(worker.older_than, CANCELS_RUNNING_SINCE)
            if outdated:
                msg = (
                    "on_duplicate='cancel_running' needs workers that know it, and these are live: "
                    f"{', '.join(outdated)}. Stop them, or bring them to this version, first"
                )
                raise OutdatedWorkersError(msg)
        answer = await self._deduplicator.start(row)
        if answer.is_known and await self._is_open(row.workflow_id, row.name, row.input):
            self._announce([queue_topic(row.queue), workflow_topic(row.workflow_id)])
        return answer.workflow_id

    async def _enqueue(self, row: Enqueued, *, has_new_id: bool = False) -> bool:
        """Enqueues a workflow, and notifies those whom it concerns; returns whether its row is new.

        Nobody waits for a workflow that ``has_new_id``.
        """
        topics = [queue_topic(row.queue)] if has_new_id else [queue_topic(row.queue), workflow_topic(row.workflow_id)]
        if row.options is not None and row.options.is_urgent(self._safety_poll):
            topics.append(ALARM_TOPIC)
        is_new = await self._enqueuer.enqueue(row, topics)
        # A start whose answer was lost looks like an earlier one, and has perhaps notified no worker yet.
        if not is_new and await self._is_open(row.workflow_id, row.name, row.input):
            self._announce(topics)
        return is_new

    async def _signal(self, request: StartRequest, message: FirstMessage) -> str:
        """Starts a workflow with a first message, or sends the message to the one that has the id.

        A start that has lost the id sends in a later statement, which sees the winner; if that is gone by then, it
        starts again. The message has the same producer each time, so it is there once.
        """
        workflow_id, arguments_text = request.workflow_id or new_id(), request.arguments_text()
        # Without a queue, any executing engine takes it, as it takes one whose worker has died: mostly this one.
        here = request.queue is None and self._executor is not None
        queue = request.recovery_queue if here else request.stored_queue
        while True:
            if await self._enqueue(_queued(workflow_id, request, queue, arguments_text)):
                return workflow_id
            try:
                await self._send(workflow_id, topic_of(message.key), message.text, message.producer)
            except WorkflowNotFoundError:
                continue
            return workflow_id

    async def run(self, request: StartRequest) -> Any:
        """Starts a workflow and waits for its result. Here and under a new id, both are one wait."""
        definition = request.definition
        request.decide_version(self._version)
        if (
            request.workflow_id is not None
            or self._executor is None
            or not request.is_for(self._version)
            or request.is_scheduled
            or request.dedup is not None
        ):
            workflow_id = await self.start(request)
        else:
            launch = Launch.of_start(new_id(), request, request.arguments_text())
            workflow_id = launch.workflow_id
            ending = await lending_place(self._executor.run(launch, request))
            if ending is not None:
                return result_of(workflow_id, ending, definition)
            # Where the start's answer was lost, it runs now.
            await self._is_open(workflow_id, definition.name, launch.arguments_text)
        return result_of(workflow_id, await self._outcome(workflow_id), definition)

    async def _is_open(self, workflow_id: str, name: str, arguments_text: str) -> bool:
        """Checks a taken id: the same workflow (fine), with other arguments (a warning), or another one (an error)."""
        found = await self._repository.started(workflow_id)
        if found is None:
            return False  # pruned meanwhile
        check_same(found, name, arguments_text)
        if self._executor is not None:
            await self._executor.adopt(found)
        return not found.status.ended


def row_of(request: StartRequest, settings: Settings) -> Enqueued:
    """The row of a workflow that any worker may take: without a queue, mostly this engine, if it executes."""
    here = settings.executes and request.is_for(settings.version)
    queue = request.recovery_queue if here else request.stored_queue
    return _queued(request.workflow_id or new_id(), request, queue, request.arguments_text())


def _queued(workflow_id: str, request: StartRequest, queue: str, arguments_text: str) -> Enqueued:
    return Enqueued(
        workflow_id,
        request.definition.name,
        queue,
        request.priority,
        arguments_text,
        request.definition.inputs,
        request.options,
        request.message,
        request.dedup,
    )


def check_same(found: Started, name: str, arguments_text: str) -> None:
    """Checks a taken id: the same workflow (fine), with other arguments (a warning), or another one (an error)."""
    if found.name != name:
        msg = f"workflow id {found.id!r} belongs to workflow {found.name!r}, so {name!r} cannot have it"
        raise WorkflowConflictError(found.id, msg)
    if found.iteration is None and found.input != arguments_text and not isinstance(found.input, Unreadable):
        logger.warning("workflow %s was started before, with other arguments; its first execution is used", found.id)
