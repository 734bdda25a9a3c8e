"""Workflows as endpoints: started by a request, and answered with their frames; messages and tokens over HTTP.

```text
expose(workflow, path, ...) ──► Endpoint: a workflow of its own ──► create_app(engine, endpoints=[...])
                                                                        │
   POST path ─ who? ─ body ─ arguments ─ guards ─ start ─► frames, or the final
   GET path/{id} ─► the same, from where the client was        DELETE path/{id} ─► cancelled
```
"""

from dbosflow.http.endpoints.endpoint import Endpoint, expose
from dbosflow.http.endpoints.guards import Guards, StartCall
from dbosflow.http.endpoints.messages import MessageRoutes, Topic, expose_messages
from dbosflow.http.endpoints.openapi import OpenApiRoutes, expose_openapi, openapi
from dbosflow.http.endpoints.tokens import TokenRoutes, expose_tokens

EXPOSED = (Endpoint, MessageRoutes, OpenApiRoutes, TokenRoutes)
"""What a module has as variables, for ``dbosflow serve`` to find."""

__all__ = [
    "EXPOSED",
    "Endpoint",
    "Guards",
    "MessageRoutes",
    "OpenApiRoutes",
    "StartCall",
    "TokenRoutes",
    "Topic",
    "expose",
    "expose_messages",
    "expose_openapi",
    "expose_tokens",
    "openapi",
]
