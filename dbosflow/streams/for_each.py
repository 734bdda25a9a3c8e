"""Durable `for_each` loops: a handler for each value of a stream. A crash neither repeats nor skips a finished item."""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack, get_args, overload

from dbosflow._records.spaces import check_own_key
from dbosflow._runtime.execution.drivers import drive
from dbosflow._runtime.execution.recorded_values import load
from dbosflow._runtime.execution.scope import branch_around
from dbosflow._runtime.operations.for_each import run_for_each
from dbosflow._runtime.operations.for_each_settings import ForEachSettings, OnError, dead_letter_key
from dbosflow._runtime.process.host import refuse_on_loop
from dbosflow.definitions import FunctionDef, StepDef, check_name
from dbosflow.errors import ConfigurationError
from dbosflow.functions import check_no_generator, local_name
from dbosflow.streams.arguments import check_count
from dbosflow.streams.declared import Stream
from dbosflow.streams.inputs import input_read_request
from dbosflow.streams.readers import StreamChannel, StreamReader, cursor_of
from dbosflow.transaction_definitions import TransactionDef
from dbosflow.types import Processed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dbosflow._runtime.execution.run import RunBranch

T = TypeVar("T")
R = TypeVar("R")

Source = str | Stream[T, Any] | StreamReader[T] | StreamChannel[T]
"""The source of a loop: an input of the workflow, or a reader of any stream."""


class LoopOptions(TypedDict, total=False):
    """The options of a `for_each` loop."""

    concurrency: int
    """The number of handlers that run at a time (1)."""
    ordered: bool
    """Whether outcomes are recorded in the order of the stream, so that the first failure in it is raised (yes); or as
    they come."""
    checkpoint_every: int
    """How many outcomes may be not yet durable while further items begin. As many more items may run again after a
    crash. With 1 (the default) an item counts as running until its outcome is durable."""
    name: str | None
    """The loop's name in records; by default the handler's."""
    on_error: OnError
    """What to do with an item whose handler fails for good, or that is not of the declared type. ``"raise"``: raise the
    error and end the loop. ``"skip"``: skip the item. ``"dead_letter"``: write ``{"offset", "value", "error"}`` to the
    workflow's stream ``<name>.dead``, and go on."""
    collect: bool
    """Whether to return the handler's results."""


@overload
def for_each(
    source: Source[T], function: Callable[[T], Awaitable[R]], **options: Unpack[LoopOptions]
) -> Processed[R]: ...
@overload
def for_each(source: Source[T], function: Callable[[T], R], **options: Unpack[LoopOptions]) -> Processed[R]: ...
def for_each(source: Any, function: Callable[[Any], Any], **options: Unpack[LoopOptions]) -> Processed[Any]:
    """Inside a sync workflow: calls ``function`` with each value of a stream until the stream ends, each as a step.

    The handlers run on the threads for steps, or on the event loop. See ``for_each_async``, its awaitable twin, for
    the arguments and errors.
    """
    refuse_on_loop("await for_each_async(...)")
    scope = branch_around("for_each", "read_stream")
    return drive(_for_each(scope, source, function, options))


@overload
async def for_each_async(
    source: Source[T], function: Callable[[T], Awaitable[R]], **options: Unpack[LoopOptions]
) -> Processed[R]: ...
@overload
async def for_each_async(
    source: Source[T], function: Callable[[T], R], **options: Unpack[LoopOptions]
) -> Processed[R]: ...
async def for_each_async(source: Any, function: Callable[[Any], Any], **options: Unpack[LoopOptions]) -> Processed[Any]:
    """Inside a workflow: calls ``function`` with each value of a stream until the stream ends, each as a step.

    The outcome of each item is recorded once, like that of any step. A recovered workflow goes on with the first item
    that is not done, and repeats only items that were running. The loop waits until values are committed: those of a
    running attempt of a step are not. Neither the memory nor the reads of a recovery grow with the stream: each record
    has the offset before which all items are done, and replaces the records below that. For the workflow the loop is
    one operation.

    Args:
        source: the key of an input, a ``Stream`` declared as an input, or a reader that ``read_input`` or
            ``read_stream`` returned. A reader's options apply; the loop continues after the last item that is done.
        function: a step, with its retries, or any function of one value, sync or async.
        options: see ``dbosflow.streams.for_each.LoopOptions``.

    Returns:
        The numbers of handled and failed items, and with ``collect`` the results.

    Raises:
        Exception: the exception of a handler, if ``on_error`` is ``"raise"``.
        SerializationError: a value is not of the declared type, if ``on_error`` is ``"raise"``; or JSON cannot carry a
            result.
        StreamTimeoutError: no news within the ``timeout`` of the source.
        StreamFailedError: the stream ended with an error, after its last value.
        StreamCancelledError: the stream ended with its workflow's cancellation, after its last value.
        StreamInputError: the key is not an input of the running workflow.
        NotInWorkflowError: the caller is not in a workflow's body.
        BranchError: the caller is no branch of its workflow.
        ConfigurationError: an option is not valid.
    """
    scope = branch_around("for_each_async", "read_stream_async")
    return await _for_each(scope, source, function, options)


async def _for_each(
    branch: RunBranch, source: Any, function: Callable[[Any], Any], options: LoopOptions
) -> Processed[Any]:
    handler = _handler(function)
    settings = _settings(options, handler)
    cursor = cursor_of(source)
    request = input_read_request(branch, source, None, {}) if cursor is None else cursor.for_each_request
    key, totals, error = await run_for_each(branch, request, handler, settings)
    if cursor is not None:
        cursor.continue_at(totals["next"])
    if error is not None:
        raise error
    texts: list[str] = []
    if options.get("collect", False):
        run = branch.run
        texts = await run.driver.wait(run, run.engine.patient_repository.collected(run.workflow_id, key))
    results = [load(branch.run, handler.result, text, f"key {key!r}") for text in texts]
    return Processed(totals["count"], totals["failed"], totals["last"], results)


def _handler(function: Any) -> StepDef:
    definition = getattr(function, "definition", None)
    if isinstance(definition, TransactionDef):
        msg = (
            f"for_each cannot run {definition} for each value, since the records of its items are not written in "
            "transactions: call it in a plain loop over a reader of the stream"
        )
        raise ConfigurationError(msg)
    if isinstance(definition, StepDef) and not getattr(function, "_receiver", ()):
        return definition
    if isinstance(definition, FunctionDef) and not isinstance(definition, StepDef):
        msg = f"for_each runs a step for each value, and {definition} is none: start children in a plain loop"
        raise ConfigurationError(msg)
    if not callable(function):
        msg = f"for_each needs a function of one value, not {function!r}: the source comes first, then the function"
        raise ConfigurationError(msg)
    if isinstance(definition, StepDef):  # of a method: its instance becomes a part of the function
        bound = MethodType(definition.function, function._receiver[0])  # noqa: SLF001 (the instance of a bound step)
        return StepDef(bound, definition.name, definition.local_names, retry=definition.retry)
    check_no_generator("step", function)
    return StepDef(function, check_name("step", local_name(function)))


def _settings(options: LoopOptions, handler: StepDef) -> ForEachSettings:
    unknown = options.keys() - LoopOptions.__annotations__.keys()
    if unknown:
        msg = f"there is no option {min(unknown)!r}; these are: {', '.join(LoopOptions.__annotations__)}"
        raise ConfigurationError(msg)
    concurrency, every = options.get("concurrency", 1), options.get("checkpoint_every", 1)
    check_count("concurrency", concurrency, 1)
    check_count("checkpoint_every", every, 1)
    on_error = options.get("on_error", "raise")
    if on_error not in get_args(OnError):
        msg = f"on_error={on_error!r} must be one of {', '.join(map(repr, get_args(OnError)))}"
        raise ConfigurationError(msg)
    name = check_name("loop", options.get("name") or handler.name)
    check_own_key(dead_letter_key(name))
    return ForEachSettings(name, concurrency, options.get("ordered", True), every, on_error)
