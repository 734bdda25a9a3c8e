"""The Durable Streams protocol, for streams of workflows and such as belong to none."""

from dbosflow.http.durable_streams.routes import DurableStreams

__all__ = ["DurableStreams"]
