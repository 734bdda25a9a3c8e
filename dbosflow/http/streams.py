"""The routes by which streams are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import BaseRoute, Route

from dbosflow.http.responses import stream_response

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from dbosflow.http.context import HttpContext


def routes(context: HttpContext) -> list[BaseRoute]:
    """The routes by which streams are read."""

    async def read(request: Request) -> Response:
        workflow_id, key = request.path_params["workflow_id"], request.path_params["key"]
        context.check_stream(key)
        await context.access.check(request, workflow_id, "read")
        await context.check_workflow(workflow_id)
        return await stream_response(context.engine, workflow_id, key, request, show_errors=context.show_errors)

    return [Route("/workflows/{workflow_id:path}/streams/{key:path}", read, methods=["GET"])]
