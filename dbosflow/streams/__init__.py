"""Durable streams: written from workflows and steps, read from anywhere.

A stream is named by its workflow and a key. Its values have the offsets 0, 1, 2 ... and never change. To resume after
the last value it has read, a reader passes on the next offset, in any process, during the workflow or long after it.
The end of a stream is no value: it comes with the workflow's end, or with ``close_stream``.

Values can be transformed while they are read, from either kind of reader or any other iterable: see
``dbosflow.streams.transforms``.
"""

from dbosflow.streams import stages
from dbosflow.streams.declared import Stream
from dbosflow.streams.for_each import LoopOptions, for_each, for_each_async
from dbosflow.streams.in_workflow import read_stream, read_stream_async
from dbosflow.streams.inputs import InputOptions, read_input, read_input_async
from dbosflow.streams.options import OnRollback, ReadOptions
from dbosflow.streams.pipes import pipe
from dbosflow.streams.readers import StreamChannel, StreamReader
from dbosflow.streams.sources import AsyncValues, Transformed, Values
from dbosflow.streams.transforms import (
    chunk,
    collect,
    filter,  # noqa: A004 (the word of the public interface)
    flat_map,
    flat_map_async,
    map,  # noqa: A004 (the word of the public interface)
    map_async,
    reduce,
    skip,
    skip_while,
    take,
    take_while,
)
from dbosflow.streams.writers import StreamWriter, close_stream, close_stream_async, write_stream, write_stream_async
from dbosflow.types import Processed, Rollback, StreamOutcome, StreamValue

__all__ = [
    "AsyncValues",
    "InputOptions",
    "LoopOptions",
    "OnRollback",
    "Processed",
    "ReadOptions",
    "Rollback",
    "Stream",
    "StreamChannel",
    "StreamOutcome",
    "StreamReader",
    "StreamValue",
    "StreamWriter",
    "Transformed",
    "Values",
    "chunk",
    "close_stream",
    "close_stream_async",
    "collect",
    "filter",
    "flat_map",
    "flat_map_async",
    "for_each",
    "for_each_async",
    "map",
    "map_async",
    "pipe",
    "read_input",
    "read_input_async",
    "read_stream",
    "read_stream_async",
    "reduce",
    "skip",
    "skip_while",
    "stages",
    "take",
    "take_while",
    "write_stream",
    "write_stream_async",
]
