"""Streams and workflows over HTTP, by ASGI: for an application of your own, or as a server (``dbosflow serve``).

- ``stream_events``, ``stream_response`` and ``poll_response`` are for a Starlette, FastAPI or Litestar application of
  your own.
- ``expose`` makes an endpoint of a workflow: a request starts it, and is answered with its frames.
- ``create_app`` makes an ASGI application to mount or to serve.

It needs the extra: ``pip install 'dbosflow[http]'``.
"""

from dbosflow.errors import ConfigurationError

try:
    import starlette  # noqa: F401 (whether it is there)
except ImportError:
    raise ConfigurationError("dbosflow.http needs its extra: pip install 'dbosflow[http]'") from None

from dbosflow.http.access import Action, Authorize
from dbosflow.http.app import HttpApp, create_app
from dbosflow.http.drain import Drain
from dbosflow.http.durable_streams import DurableStreams
from dbosflow.http.endpoints import (
    Endpoint,
    Guards,
    MessageRoutes,
    OpenApiRoutes,
    StartCall,
    TokenRoutes,
    Topic,
    expose,
    expose_messages,
    expose_openapi,
    expose_tokens,
    openapi,
)
from dbosflow.http.events import (
    CancelledEvent,
    ChunkEvent,
    CompleteEvent,
    ErrorEvent,
    FrameEvent,
    HeartbeatEvent,
    RollbackEvent,
    StartEvent,
    TruncatedEvent,
    UnreadableEvent,
    UpToDateEvent,
)
from dbosflow.http.formats import NDJSON, SSE, Format
from dbosflow.http.limits import Limits
from dbosflow.http.long_poll import poll_response
from dbosflow.http.reading import stream_events
from dbosflow.http.responses import stream_response
from dbosflow.http.tokens import ReadTokens

__all__ = [
    "NDJSON",
    "SSE",
    "Action",
    "Authorize",
    "CancelledEvent",
    "ChunkEvent",
    "CompleteEvent",
    "Drain",
    "DurableStreams",
    "Endpoint",
    "ErrorEvent",
    "Format",
    "FrameEvent",
    "Guards",
    "HeartbeatEvent",
    "HttpApp",
    "Limits",
    "MessageRoutes",
    "OpenApiRoutes",
    "ReadTokens",
    "RollbackEvent",
    "StartCall",
    "StartEvent",
    "TokenRoutes",
    "Topic",
    "TruncatedEvent",
    "UnreadableEvent",
    "UpToDateEvent",
    "create_app",
    "expose",
    "expose_messages",
    "expose_openapi",
    "expose_tokens",
    "openapi",
    "poll_response",
    "stream_events",
    "stream_response",
]
