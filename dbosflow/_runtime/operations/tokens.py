"""Tokens: promises of a workflow that anybody can keep who has the token's id.

```text
create_token ──► its secret on record ──► the id goes anywhere ──► resolve or reject: one frame, checked by the secret
      token.wait ──► the frame ──► its record: the same answer for each wait
```
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from dbosflow._records.kinds import RecordKind
from dbosflow._records.spaces import token_key
from dbosflow._runtime.execution.recorded_values import failure, load
from dbosflow._runtime.operations.operation import DurableOperation
from dbosflow._runtime.operations.receiving import Taken, unfit
from dbosflow._runtime.operations.timed_waits import TimedWait
from dbosflow._runtime.runs.durable_waits import DurableWait
from dbosflow._runtime.runs.entries import Record
from dbosflow._runtime.streams.inbox import Inbox
from dbosflow.config import check_identifier
from dbosflow.errors import ConfigurationError, MessageTimeoutError, RejectedError, ThreadLimitError
from dbosflow.failures import dump_error
from dbosflow.types import FrameKind

if TYPE_CHECKING:
    from dbosflow._runtime.execution.run import Run, RunBranch
    from dbosflow.serde import Codec

_NAME = "token"
_SECRET_BYTES = 16
_SHOWN = 12
"""Characters of a wrong id that an error shows."""


class TokenId(NamedTuple):
    """What the id of a token says."""

    workflow_id: str
    operation: str
    """The key of the operation that created it."""
    secret: str

    @property
    def key(self) -> str:
        """The key of the stream with the answer."""
        return token_key(self.operation)

    def text(self) -> str:
        """The id: letters, digits, ``-`` and ``_``, so that it can stand in a URL."""
        return base64.urlsafe_b64encode(json.dumps([*self], separators=(",", ":")).encode()).decode().rstrip("=")


def parse_token_id(text: object) -> TokenId:
    """Reads the id of a token. Raises ``ConfigurationError`` if it is none."""
    try:
        return _token_id(text)
    except (ValueError, TypeError, RecursionError, ConfigurationError) as error:
        shown = repr(text)
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."  # it may be most of an id, with its secret
        msg = f"{shown} is no id of a token: give what token.id was, as it was"
        raise ConfigurationError(msg) from error


def _token_id(text: object) -> TokenId:
    if not isinstance(text, str):
        raise TypeError
    found = TokenId(*json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))))
    if not all(isinstance(part, str) for part in found):
        raise TypeError
    check_identifier("workflow id", found.workflow_id)
    return found


async def create(branch: RunBranch) -> TokenId:
    """Creates a token; it is durable by then, so that its id can go anywhere."""
    run = branch.run
    async with DurableOperation(branch, RecordKind.TOKEN, _NAME, "create_token()") as operation:
        key = operation.key

        async def live() -> Record:
            return Record(key, RecordKind.TOKEN, output=json.dumps(secrets.token_urlsafe(_SECRET_BYTES)))

        found = await operation.outcome(live)
    return TokenId(run.workflow_id, key, json.loads(found.output or '""'))


async def wait(branch: RunBranch, token: TokenId, codec: Codec[Any], seconds: float | None) -> Any:
    """Waits for the answer to a token of the branch's workflow."""
    run, taken = branch.run, Taken()
    async with DurableOperation(branch, RecordKind.ANSWER, "answer", "token.wait()") as operation:
        key, record, driver = operation.key, operation.record, operation.driver

        async def live() -> Record:
            output, error, began = None, None, time.monotonic()
            standing = DurableWait(taken.standing, key=key)
            try:
                work = _take(run, key, token, seconds, taken)
                await driver.wait(run, work, awaits=run.workflow_id, wait=standing)
            except (MessageTimeoutError, ThreadLimitError) as refused:
                error = dump_error(refused)
            else:
                assert taken.message is not None
                if taken.message.kind is FrameKind.ERROR:
                    error = taken.message.text
                else:
                    output = taken.message.text
                    error = unfit(codec, output)
            return Record(key, RecordKind.ANSWER, output=output, error=error, elapsed=time.monotonic() - began)

        found = await operation.outcome(live)
    if found.error is not None:
        failed = failure(run, found.error, f"key {key!r}", record)
        raise failed.exception or failed.noted(RejectedError(f"{failed.type}: {failed.message}"))
    return load(run, codec, found.output, f"key {key!r}", record)


async def _take(run: Run, key: str, token: TokenId, seconds: float | None, taken: Taken) -> None:
    taken.inbox = Inbox(run.workflow_id, token.key, run.engine.read_page, ())
    taken.wait = timed = TimedWait(run, key, seconds, f"answer to token {token.operation!r} of {run.workflow_id!r}")
    taken.message = await taken.inbox.take(timed)
