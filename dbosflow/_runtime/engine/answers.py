"""Answers that cross a workflow's edge: to its tokens, from outside, and to requests, from the workflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from dbosflow._records.spaces import reply_key
from dbosflow._runtime.streams.hub import UNSEEN
from dbosflow._runtime.streams.message_writer import check_size, refusal
from dbosflow._store import message
from dbosflow._store.notify import stream_topic
from dbosflow.errors import AlreadyAnsweredError, TokenNotFoundError, WorkflowEndedError, WorkflowNotFoundError
from dbosflow.serde import size_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dbosflow._runtime.operations.tokens import TokenId
    from dbosflow._runtime.repository import Repository
    from dbosflow._runtime.streams.hub import SeenStatus
    from dbosflow._store.stream import Block, Page
    from dbosflow.config import Settings
    from dbosflow.types import FrameKind


class ReadPage(Protocol):
    """Waits for a page of a stream: see ``Hub.read``."""

    async def __call__(self, workflow_id: str, key: str, offset: int, known: SeenStatus) -> Page: ...


class Answers:
    """The answers of one engine."""

    def __init__(
        self,
        repository: Repository,
        settings: Settings,
        read_page: ReadPage,
        announce: Callable[[Iterable[str]], None],
    ) -> None:
        self._repository = repository
        self._settings = settings
        self._read_page = read_page
        self._announce = announce

    async def answer_token(self, token: TokenId, kind: FrameKind, text: str, producer: str) -> None:
        """Answers a token, durable on return. The same ``producer`` may answer again."""
        workflow_id = token.workflow_id
        check_size(self._settings, workflow_id, text)
        values: dict[str, Any] = token._asdict() | {"key": token.key, "kind": str(kind), "payload": text}
        values |= {"bytes": size_of(text), "producer": producer}
        while True:
            found = await self._repository.ask(message.resolve, values)
            refused = refusal(workflow_id, found)
            if isinstance(refused, WorkflowNotFoundError):
                raise refused
            if not found.valid:
                msg = f"workflow {workflow_id!r} has no such token: the id was changed, or the workflow is a later one"
                raise TokenNotFoundError(workflow_id, msg)
            if found.answered_by == producer:
                self._announce([stream_topic(workflow_id, token.key)])
                return
            if found.answered_by is not None:
                msg = f"a token of workflow {workflow_id!r} has been answered before, and that answer counts"
                raise AlreadyAnsweredError(workflow_id, msg)
            if refused is not None:
                raise refused

    async def reply(self, workflow_id: str, topic: str, offset: int, *, once: bool = False) -> Block:
        """Waits for the reply to the message at an offset; ``once``: only looks.

        Raises:
            WorkflowEndedError: the workflow has ended without one.
            TimeoutError: there is none yet, and ``once`` is set.
        """
        status: SeenStatus = UNSEEN
        while True:
            page = await self._read_page(workflow_id, reply_key(topic, offset), 0, status)
            if page.blocks:
                return page.blocks[0]
            status = page.status
            if status is None:
                raise WorkflowNotFoundError(workflow_id, f"there is no workflow {workflow_id!r}")
            if status.ended:
                msg = f"workflow {workflow_id!r} has ended ({status}) without a reply to the request on topic {topic!r}"
                raise WorkflowEndedError(workflow_id, msg)
            if once:
                raise TimeoutError
