"""Input streams: they are written from outside of a workflow, and read by its body.

A workflow declares its inputs, ``@workflow(inputs=["chat"])``. Any process may write to them with
``engine.write_stream``, from the time when the workflow is started or enqueued until it ends. The workflow only reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack, cast, overload

from dbosflow._runtime.execution.drivers import drive
from dbosflow._runtime.execution.scope import branch_around
from dbosflow._runtime.operations.recorded_reads import next_page
from dbosflow._runtime.process.host import refuse_on_loop
from dbosflow._store.carried import ReadPlace
from dbosflow.config import check_identifier
from dbosflow.errors import ConfigurationError, StreamInputError
from dbosflow.serde import dump_undeclared
from dbosflow.streams.declared import Stream, key_of
from dbosflow.streams.options import read_request
from dbosflow.streams.readers import StreamChannel, StreamReader

if TYPE_CHECKING:
    from dbosflow._runtime.execution.run import RunBranch
    from dbosflow._runtime.streams.cursor import StreamCursor
    from dbosflow._runtime.streams.position import ReadRequest
    from dbosflow.streams.options import ReadOptions

C = TypeVar("C")
T = TypeVar("T")


class InputOptions(TypedDict, total=False):
    """The range of an input to read, and how long to wait."""

    start: int
    """The offset to begin at: by default 0, and after ``continue_as_new`` where the iteration before has come to. To go
    on after another reader, pass its ``offset``."""
    until: int | None
    """The offset to end before; by default none."""
    timeout: float | None
    """Seconds without news after which ``StreamTimeoutError`` is raised. Reading can go on after that."""


@overload
def read_input(stream: Stream[C, Any], /, **options: Unpack[InputOptions]) -> StreamReader[C]: ...
@overload
def read_input(stream: str, /, **options: Unpack[InputOptions]) -> StreamReader[Any]: ...
@overload
def read_input(stream: str, /, *, type: type[T], **options: Unpack[InputOptions]) -> StreamReader[T]: ...
def read_input(
    stream: str | Stream[Any, Any],
    /,
    *,
    type: Any = None,  # noqa: A002 (the word of the public interface)
    **options: Unpack[InputOptions],
) -> StreamReader[Any]:
    """Inside a sync workflow: an iterator over the values of an input of the running workflow, each once.

    See ``read_input_async``, its awaitable twin, for the arguments and errors.
    """
    refuse_on_loop("read_input_async(...)")
    scope = branch_around("read_input", "read_stream")
    cursor = input_cursor(scope, input_read_request(scope, stream, type, options))
    return StreamReader(cursor, lambda: drive(next_page(scope, cursor)))


@overload
def read_input_async(stream: Stream[C, Any], /, **options: Unpack[InputOptions]) -> StreamChannel[C]: ...
@overload
def read_input_async(stream: str, /, **options: Unpack[InputOptions]) -> StreamChannel[Any]: ...
@overload
def read_input_async(stream: str, /, *, type: type[T], **options: Unpack[InputOptions]) -> StreamChannel[T]: ...
def read_input_async(
    stream: str | Stream[Any, Any],
    /,
    *,
    type: Any = None,  # noqa: A002 (the word of the public interface)
    **options: Unpack[InputOptions],
) -> StreamChannel[Any]:
    """Inside a workflow: a channel of the items of an input of the running workflow, each once.

    The items come in the order of their offsets. How far the workflow has read is recorded, so a recovered workflow
    reads the same items again and then goes on. Keep one reader for each input: a second one begins anew. The channel's
    last item, ``closed``, comes when the input is closed with ``engine.close_stream``.

    Args:
        stream: the input's key, or the declared ``Stream``, which gives the values its type.
        type: the type of the values, for a key; plain JSON by default.
        options: ``start``, ``until`` and ``timeout``; see ``dbosflow.streams.inputs.InputOptions``.

    Raises:
        StreamInputError: the running workflow was not started with such an input.
        StreamTimeoutError: while reading: no news within ``timeout`` seconds. Reading can go on.
        SerializationError: while reading: the next value is not of the type.
        NotInWorkflowError: the caller is not in a workflow's body.
        ConfigurationError: an option is not valid.
    """
    scope = branch_around("read_input_async", "read_stream_async")
    cursor = input_cursor(scope, input_read_request(scope, stream, type, options))
    return StreamChannel(cursor, lambda: next_page(scope, cursor))


def input_read_request(
    branch: RunBranch, stream: str | Stream[Any, Any], type_: Any, options: InputOptions
) -> ReadRequest:
    """The request to read an input of the running workflow."""
    run, key = branch.run, key_of(stream)
    if key not in run.inputs:
        inputs = ", ".join(sorted(map(repr, run.inputs))) or "none"
        msg = (
            f"stream {key!r} is no input of workflow {run.workflow_id!r}, which was started with these: {inputs}. "
            f"Declare it, as in @workflow(inputs=[{key!r}]), before the workflow starts"
        )
        raise StreamInputError(run.workflow_id, key, msg)
    unknown = options.keys() - InputOptions.__annotations__.keys()
    if unknown:
        msg = f"there is no option {min(unknown)!r}; these are: {', '.join(InputOptions.__annotations__)}"
        raise ConfigurationError(msg)
    if "start" not in options and (place := run.history.carried.inputs.get(key)) is not None:
        options = {**options, "start": place.next}
    start: Any = options.get("start", 0)
    if not isinstance(start, int) or isinstance(start, bool) or start < 0:
        msg = f"start={start!r} must be an offset, 0 or more"
        raise ConfigurationError(msg)
    every = cast("ReadOptions", options)
    if isinstance(stream, Stream):
        return stream.read_request(run.workflow_id, every)
    return read_request(run.workflow_id, key, type_, every)


def input_cursor(branch: RunBranch, request: ReadRequest) -> StreamCursor:
    """A cursor over an input of the running workflow, whose next iteration goes on where the cursor has come to."""
    run = branch.run
    cursor = run.engine.cursor(request)
    run.read_places[request.key] = lambda: ReadPlace(cursor.offset)
    return cursor


def input_value_text(stream: str | Stream[Any, Any], value: Any) -> str:
    """The JSON of a value for an input, checked if the stream has a type."""
    return stream.dump(value) if isinstance(stream, Stream) else dump_undeclared(value, "a stream's value")


def check_idempotency_key(idempotency_key: str | None) -> str | None:
    """The key, if it is valid. Otherwise raises a ``ConfigurationError``."""
    return None if idempotency_key is None else check_identifier("idempotency key", idempotency_key)
