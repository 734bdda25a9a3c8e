"""Compression of payloads."""

from __future__ import annotations

import zlib
from typing import ClassVar

from dbosflow.errors import CodecError, ConfigurationError

_LARGEST = 1 << 30
"""Bytes that a payload may have in the database: what claims to be more was not made here."""
_LEVELS = range(1, 10)


class Compress:
    """Compresses payloads from a certain size on, where that makes them smaller.

    In a chain it stands before ``Encrypt``: what is encrypted cannot be compressed. Every engine can read what is
    compressed, whatever its own codecs are. The size of an encrypted payload still tells how well its content could be
    compressed.

    Args:
        above: the size in bytes of JSON above which a payload is compressed.
        level: from 1, the fastest, to 9, the smallest.

    Raises:
        ConfigurationError: a number is not valid.
    """

    name: ClassVar = "zlib"
    conceals: ClassVar = False

    def __init__(self, *, above: int = 1024, level: int = 6) -> None:
        if type(above) is not int or above < 0:
            msg = f"Compress(above={above!r}) must be a number of bytes, of 0 or more"
            raise ConfigurationError(msg)
        if level not in _LEVELS:
            msg = f"Compress(level={level!r}) must be a whole number from 1 to 9"
            raise ConfigurationError(msg)
        self._above = above
        self._level = level

    def encode(self, data: bytes, /) -> tuple[str, bytes] | None:
        """The data compressed, unless that is not worth it."""
        if len(data) <= self._above:
            return None
        made = zlib.compress(data, self._level)
        return ("", made) if len(made) < len(data) else None

    def decode(self, detail: str, data: bytes, /) -> bytes:  # noqa: ARG002 (there is none)
        """The data."""
        inflater = zlib.decompressobj()
        try:
            found = inflater.decompress(data, _LARGEST)
        except zlib.error as error:
            msg = f"a compressed payload is damaged: {error}"
            raise CodecError(msg) from error
        if not inflater.eof:
            msg = "a compressed payload is damaged: it is cut off, or larger than any payload"
            raise CodecError(msg)
        return found
