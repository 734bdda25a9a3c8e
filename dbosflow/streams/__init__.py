"""Durable streams: written from workflows and steps, read from anywhere.

A stream is named by its workflow and a key. Its values have the offsets 0, 1, 2 ... and never change; a reader that
keeps the offset of its last value resumes behind it, in any process, during the workflow or long after it. The end of
a stream is no value: it comes with the workflow's end, or with :func:`close_stream`.
"""

from dbosflow.streams.declared import Stream
from dbosflow.streams.inside import read_stream, read_stream_async
from dbosflow.streams.options import OnRollback, ReadOptions
from dbosflow.streams.readers import StreamChannel, StreamReader
from dbosflow.streams.writers import StreamWriter, close_stream, close_stream_async, write_stream, write_stream_async
from dbosflow.types import Rollback, StreamOutcome, StreamValue

__all__ = [
    "OnRollback",
    "ReadOptions",
    "Rollback",
    "Stream",
    "StreamChannel",
    "StreamOutcome",
    "StreamReader",
    "StreamValue",
    "StreamWriter",
    "close_stream",
    "close_stream_async",
    "read_stream",
    "read_stream_async",
    "write_stream",
    "write_stream_async",
]
