"""Streams with a type: declared once, used by writers and readers alike."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args

from dbosflow.config import check_identifier
from dbosflow.serde import Codec
from dbosflow.streams.options import read_request
from dbosflow.streams.writers import StreamWriter

if TYPE_CHECKING:
    from dbosflow._runtime.operations.writing import OnRetry
    from dbosflow._runtime.streams.cursor import ReadRequest
    from dbosflow.streams.options import ReadOptions

C = TypeVar("C")
F = TypeVar("F")


class Stream(Generic[C, F]):
    """A stream of chunks of type ``C`` that is closed with a payload of type ``F``.

    ``tokens = Stream[str, Usage]("tokens")`` at the top of a module; then ``tokens.writer()`` in a workflow or step,
    and ``engine.read(tokens, workflow_id)`` anywhere. pydantic checks chunks and payload where they are written.
    """

    def __init__(self, key: str) -> None:
        self.key = check_identifier("stream key", key)

    def __repr__(self) -> str:
        return f"Stream({self.key!r})"

    def writer(self, *, on_retry: OnRetry = "rollback") -> StreamWriter[C, F]:
        """A writer for the running workflow or step.

        Args:
            on_retry: in a step, what becomes of what an attempt wrote if it does not succeed. ``"rollback"``: it
                is rolled back, and the next attempt writes anew. ``"keep"``: it counts at once and stays. ``"resume"``:
                the next attempt goes on behind it (see ``StreamWriter.emitted``), and it is rolled back if the step
                fails for good.
        """
        return StreamWriter(self.key, on_retry, self._chunks, self._final)

    def read_request(self, workflow_id: str, options: ReadOptions) -> ReadRequest:
        """The request to read this stream of a workflow."""
        return read_request(workflow_id, self.key, self._types[0], options, self._final)

    def dump(self, value: C) -> str:
        """A value as JSON, checked."""
        return self._chunks.dump(value)

    @cached_property
    def _types(self) -> tuple[Any, Any]:
        given = get_args(getattr(self, "__orig_class__", None))  # set by Stream[C, F](...) after __init__
        chunk, final = given or (Any, Any)
        return chunk, final

    @cached_property
    def _chunks(self) -> Codec[C]:
        return Codec(self._types[0], f"a value of stream {self.key!r}")

    @cached_property
    def _final(self) -> Codec[F]:
        return Codec(self._types[1], f"the final payload of stream {self.key!r}")


def key_of(stream: str | Stream[Any, Any]) -> str:
    """The key of a stream that is given by its key or as declared."""
    return stream.key if isinstance(stream, Stream) else check_identifier("stream key", stream)
