"""dbosflow on asyncio's own loop, measured in turn with what ``benchmarks.ours`` is on uvloop."""

from benchmarks.ours import ON_ASYNCIO as CONTENDER

__all__ = ("CONTENDER",)
