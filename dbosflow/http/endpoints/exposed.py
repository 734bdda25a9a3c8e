"""The workflow of an endpoint: the author's function, then the guards behind it, then the end of the stream.

```text
body of the author's workflow ──► what it returns ──► guards, one step ──► the final: on record
                                                                              │
                                              the stream is closed with it, and the workflow ends with it
```

It is a workflow of its own, under the endpoint's name, so that a start of the author's workflow from elsewhere has no
guards, and so that every worker that has imported the endpoint goes on with it.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any

from dbosflow.errors import DefinitionError
from dbosflow.http.endpoints.guards import guarded
from dbosflow.registry import registry
from dbosflow.serde import Codec
from dbosflow.steps import run_step, run_step_async
from dbosflow.streams import Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow.definitions import WorkflowDef
    from dbosflow.http.endpoints.guards import Guards

AFTER = "after_guards"
"""The name of the step in records."""


def exposed(
    definition: WorkflowDef, name: str, final: Any, stream: Stream[Any, Any] | None, guards: Guards
) -> WorkflowDef:
    """The workflow of an endpoint, made of an author's, and known to this process under ``name``.

    Raises:
        DefinitionError: the author's is a class method, or another endpoint has the name.
    """
    if definition.method is classmethod:
        msg = f"{definition} is a class method: expose a function"
        raise DefinitionError(msg)
    last = _Last(final, stream, guards)
    body = _async_body(definition, last) if definition.is_async else _sync_body(definition, last)
    made = replace(definition, function=body, name=name, method=None, returns=final)
    try:
        registry.add(made)
    except DefinitionError as error:
        msg = f"another workflow or endpoint has the name {made.name!r}: give expose(..., name=) another one"
        raise DefinitionError(msg) from error
    return made


class _Last:
    """What happens behind an author's body."""

    def __init__(self, final: Any, stream: Stream[Any, Any] | None, guards: Guards) -> None:
        self._final = final
        self._codec: Codec[Any] = Codec(final, "the final of an endpoint")
        self._guards = guards
        self.stream = stream if stream is None or stream.types[1] is not Any else Stream[Any, final](stream.key)
        """The stream to be closed with the final."""
        self.is_guarded = bool(guards.after)

    def guard(self, value: Any) -> Callable[[], Any]:
        """The step with the guards."""

        def after_guards() -> Any:
            return guarded(self._guards, value)

        after_guards.__annotations__["return"] = self._final
        return after_guards

    def check(self, final: Any) -> None:
        """Raises a ``SerializationError`` if it is not of the type that clients were told."""
        self._codec.dump(final)


def _async_body(definition: WorkflowDef, last: _Last) -> Any:
    function = definition.function

    @wraps(function)
    async def body(*args: Any, **kwargs: Any) -> Any:
        final = function(*args, **kwargs)
        if inspect.isawaitable(final):
            final = await final
        if last.is_guarded:
            final = await run_step_async(AFTER, last.guard(final))
        last.check(final)
        if last.stream is not None:
            await last.stream.writer().close_async(final)
        return final

    return body


def _sync_body(definition: WorkflowDef, last: _Last) -> Any:
    function = definition.function

    @wraps(function)
    def body(*args: Any, **kwargs: Any) -> Any:
        final = function(*args, **kwargs)
        if last.is_guarded:
            final = run_step(AFTER, last.guard(final))
        last.check(final)
        if last.stream is not None:
            last.stream.writer().close(final)
        return final

    return body
