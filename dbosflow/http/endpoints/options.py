"""What an endpoint is made of, and what it shares in one application."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar

if TYPE_CHECKING:
    from dbosflow.http.context import HttpContext
    from dbosflow.http.endpoints.arguments import Arguments
    from dbosflow.http.endpoints.guards import Guards
    from dbosflow.http.endpoints.identity import Place
    from dbosflow.http.endpoints.presence import Presence
    from dbosflow.streams import Stream
    from dbosflow.workflows import WorkflowSpec

P = ParamSpec("P")
T = TypeVar("T")

Method = Literal["POST", "PUT", "PATCH"]
Mode = Literal["stream", "aggregate"]
OnDisconnect = Literal["continue", "cancel"]


@dataclass(frozen=True)
class EndpointOptions(Generic[P, T]):
    """What an endpoint is made of."""

    spec: WorkflowSpec[P, T]
    """The endpoint's own workflow, with the options of its starts."""
    place: Place
    stream: Stream[Any, Any] | None
    final: Any
    mode: Mode
    guards: Guards
    on_disconnect: OnDisconnect
    grace: float
    """Seconds after which a client that is gone does not come back."""
    wait: float
    """Seconds that a client waits for a final, unless it says otherwise."""
    public: bool
    body_bytes: int | None
    arguments: Arguments

    @property
    def path(self) -> str:
        """The path, with names of arguments in braces."""
        return self.place.path

    @property
    def method(self) -> str:
        """The method of the request that starts its workflow."""
        return self.place.method

    @property
    def name(self) -> str:
        """The name of its workflow in records."""
        return self.spec.definition.name


@dataclass(frozen=True, slots=True)
class Served:
    """An endpoint in one application."""

    endpoint: EndpointOptions[Any, Any]
    context: HttpContext
    presence: Presence | None
    """Who reads its workflows, if these are cancelled when nobody does."""
