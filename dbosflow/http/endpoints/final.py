"""The answer of an endpoint with its final: what the workflow returns, behind its guards."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, TypeVar

from starlette.responses import Response

from dbosflow.http.endpoints.answering import json_response
from dbosflow.http.endpoints.frames import with_id
from dbosflow.http.endpoints.outcomes import PendingOutcome
from dbosflow.http.problems import problem_of_outcome
from dbosflow.http.responses import while_wanted

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from dbosflow.http.endpoints.options import Served

T = TypeVar("T")

_LATER = 202


class FinalResponse(Response):
    """What a workflow returns, as JSON; status 202 and the place to look if it has not ended in time."""

    def __init__(self, served: Served, workflow_id: str, where: str, seconds: float) -> None:
        super().__init__()
        self._served = served
        self._workflow_id = workflow_id
        self._where = where
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Waits for the workflow's end, or until the client is gone; then answers."""
        presence = self._served.presence
        async with AsyncExitStack() as resources:
            reading = None
            if presence is not None:
                reading = await resources.enter_async_context(presence.reading(self._workflow_id))
            outcome = resources.enter_context(PendingOutcome(self._served.context.engine, self._workflow_id))
            done = await while_wanted(self._answer(outcome), receive)
            if done is not None:
                answer = done.result()
                if reading is not None:
                    reading.parting = "told" if answer.status_code == _LATER else "ended"
                await answer(scope, receive, send)

    async def _answer(self, outcome: PendingOutcome) -> Response:
        if not await outcome.within(self._seconds, self._served.context.drain):
            headers = with_id(self._workflow_id, Location=self._where)
            return json_response({"id": self._workflow_id}, _LATER, {**headers, "Retry-After": "1"})
        try:
            final = outcome.result()
        except Exception as error:  # noqa: BLE001 (of the author's: the worker has logged it)
            response: Response = problem_of_outcome(error)
            response.headers.update(with_id(self._workflow_id))
            return response
        return json_response(final, headers=with_id(self._workflow_id, **{"Content-Location": self._where}))
