"""Tokens of a workflow, which anybody answers who has the token's id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from dbosflow._runtime.execution.drivers import drive
from dbosflow._runtime.execution.scope import branch_around
from dbosflow._runtime.operations import tokens
from dbosflow._runtime.process.host import refuse_on_loop
from dbosflow.errors import NotInWorkflowError
from dbosflow.messages.receiving import seconds_of
from dbosflow.serde import Codec

if TYPE_CHECKING:
    from datetime import timedelta

    from dbosflow._runtime.execution.run import RunBranch
    from dbosflow._runtime.operations.tokens import TokenId

T = TypeVar("T")


class Token:
    """A promise that anybody can keep who has its ``id``: with ``engine.resolve`` or ``engine.reject``.

    ``id`` holds a secret, and letters, digits, ``-`` and ``_`` only, so that it can stand in a link. Whoever has the id
    can answer, once.
    """

    def __init__(self, token_id: TokenId) -> None:
        self._id = token_id
        self.id = token_id.text()

    @overload
    def wait(self, *, timeout: float | timedelta | None = None) -> Any: ...
    @overload
    def wait(self, *, type: type[T], timeout: float | timedelta | None = None) -> T: ...
    def wait(
        self,
        *,
        type: Any = None,  # noqa: A002 (the word of the public interface)
        timeout: float | timedelta | None = None,
    ) -> Any:
        """Waits for the answer, in a sync workflow.

        See ``wait_async``, its awaitable twin, for the arguments and errors.
        """
        refuse_on_loop("await token.wait_async(...)")
        return drive(tokens.wait(self._branch("token.wait"), self._id, _codec(type), seconds_of(timeout)))

    @overload
    async def wait_async(self, *, timeout: float | timedelta | None = None) -> Any: ...  # noqa: ASYNC109
    @overload
    async def wait_async(self, *, type: type[T], timeout: float | timedelta | None = None) -> T: ...  # noqa: ASYNC109
    async def wait_async(
        self,
        *,
        type: Any = None,  # noqa: A002 (the word of the public interface)
        timeout: float | timedelta | None = None,  # noqa: ASYNC109 (durable)
    ) -> Any:
        """Waits for the answer, in the body of the workflow that created the token; each call returns the same.

        Args:
            type: the type of the answer; plain JSON by default.
            timeout: how long to wait at most, in seconds or as a ``timedelta``. The limit is durable. The token can
                still be answered after it. ``None``: without limit.

        Raises:
            Exception: the exception that the token was rejected with, rebuilt.
            RejectedError: it was rejected with a text, or its exception cannot be rebuilt here.
            MessageTimeoutError: there was no answer within ``timeout``.
            SerializationError: the answer is not of ``type``.
            NotInWorkflowError: the caller is not in the body of the workflow that created the token.
            ConfigurationError: ``timeout`` is not valid.
        """
        return await tokens.wait(self._branch("token.wait_async"), self._id, _codec(type), seconds_of(timeout))

    def _branch(self, what: str) -> RunBranch:
        branch = branch_around(what, None)
        if branch.run.workflow_id != self._id.workflow_id:
            msg = f"{what} was called in another workflow than {self._id.workflow_id!r}, which created the token"
            raise NotInWorkflowError(msg)
        return branch

    def __repr__(self) -> str:
        return f"<Token {self._id.operation!r} of workflow {self._id.workflow_id!r}>"


def create_token() -> Token:
    """Creates a token, in a sync workflow. See ``create_token_async``, its awaitable twin."""
    refuse_on_loop("await create_token_async()")
    return Token(drive(tokens.create(branch_around("create_token", None))))


async def create_token_async() -> Token:
    """Creates a token of the running workflow, for an answer from outside that comes once.

    The token is durable when the call returns, and a replay gives the same one: its ``id`` can go into a mail, a link,
    or a request to another service. ``engine.resolve`` and ``engine.reject`` answer it, from any process; the first
    answer counts.

    Raises:
        NotInWorkflowError: the caller is not in a workflow's body.
        BranchError: the caller is no branch of its workflow.
    """
    return Token(await tokens.create(branch_around("create_token_async", None)))


def _codec(annotation: Any) -> Codec[Any]:
    return Codec(Any if annotation is None else annotation, "the answer to a token")
