"""Typed streams: declared once, and used by writers and readers alike."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args

from dbosflow._records.spaces import check_own_key
from dbosflow.serde import Codec
from dbosflow.streams.options import read_request
from dbosflow.streams.writers import StreamWriter

if TYPE_CHECKING:
    from dbosflow._runtime.operations.writing import OnRetry
    from dbosflow._runtime.streams.position import ReadRequest
    from dbosflow.streams.options import ReadOptions

C = TypeVar("C")
F = TypeVar("F")


class Stream(Generic[C, F]):
    """A stream whose values have type ``C`` and whose final payload has type ``F``.

    Declare ``tokens = Stream[str, Usage]("tokens")`` at the top of a module. Then write with ``tokens.writer()`` in a
    workflow or step, and read with ``engine.read(tokens, workflow_id)`` anywhere. pydantic checks values and payload
    when they are written.

    Raises:
        ConfigurationError: the key is not valid.
    """

    def __init__(self, key: str) -> None:
        self.key = check_own_key(key)

    def __repr__(self) -> str:
        return f"Stream({self.key!r})"

    def writer(self, *, on_retry: OnRetry = "rollback") -> StreamWriter[C, F]:
        """A writer for the running workflow or step.

        Args:
            on_retry: in a step, what happens to the values of an attempt that does not succeed. ``"rollback"``: they
                are rolled back, and the next attempt writes anew. ``"keep"``: values count at once and stay.
                ``"resume"``: the next attempt continues after them (see ``StreamWriter.emitted``), and they are rolled
                back if the step fails for good.

        Raises:
            NotInWorkflowError: no workflow or step is running here.
            ConfigurationError: ``on_retry`` is set in a workflow's body, or changed within an attempt.
        """
        return StreamWriter(self.key, on_retry, self._chunks, self._final)

    def read_request(self, workflow_id: str, options: ReadOptions) -> ReadRequest:
        """The request to read this stream of a workflow."""
        return read_request(workflow_id, self.key, self.types[0], options, self._final)

    def dump(self, value: C) -> str:
        """The JSON of a value, checked against the type."""
        return self._chunks.dump(value)

    @cached_property
    def types(self) -> tuple[Any, Any]:
        """The types of its values and of its final payload; ``Any`` where none was declared."""
        given = get_args(getattr(self, "__orig_class__", None))  # set by Stream[C, F](...) after __init__
        chunk, final = given or (Any, Any)
        return chunk, final

    @cached_property
    def _chunks(self) -> Codec[C]:
        return Codec(self.types[0], f"a value of stream {self.key!r}")

    @cached_property
    def _final(self) -> Codec[F]:
        return Codec(self.types[1], f"the final payload of stream {self.key!r}")


def key_of(stream: str | Stream[Any, Any]) -> str:
    """The key of a stream that is given as a key or a ``Stream``."""
    return stream.key if isinstance(stream, Stream) else check_own_key(stream)
