"""Ways to a server that take no startup options, as poolers are: one that refuses them, and one that drops them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from tests.behaviour.proxy import Proxy

if TYPE_CHECKING:
    import socket

PROTOCOL = struct.pack("!i", 3 << 16)
WORDS = ("unsupported startup parameter: options", "unsupported startup parameter in options: row_security")
"""PgBouncer's, before 1.20 and since."""


def error_response(sqlstate: str, message: str) -> bytes:
    """The protocol's ErrorResponse."""
    fields = b"".join(f"{code}{text}\0".encode() for code, text in [("S", "FATAL"), ("C", sqlstate), ("M", message)])
    return b"E" + struct.pack("!i", len(fields) + 5) + fields + b"\0"


def is_startup(data: bytes) -> bool:
    """Whether it is what a session begins with."""
    return data[4:8] in {PROTOCOL, struct.pack("!hh", 3, 2)}


class Refusing(Proxy):
    """Takes no session with options; says so as poolers do."""

    def __init__(self, url: str, words: str = WORDS[0]) -> None:
        self.refused = 0
        self._words = words
        super().__init__(url)

    def sent(self, client: socket.socket, data: bytes) -> None:
        if is_startup(data) and b"\0options\0" in data:
            self.refused += 1
            client.sendall(error_response("08P01", self._words))
            raise ConnectionError


class Older(Proxy):
    """Knows no ``transaction_timeout``; says so in its own language. It was put in the place of a newer one."""

    def __init__(self, url: str, words: str) -> None:
        self._words = words
        super().__init__(url)

    def sent(self, client: socket.socket, data: bytes) -> None:
        if is_startup(data) and b"transaction_timeout" in data:
            client.sendall(error_response("42704", self._words))
            raise ConnectionError


class Dropping(Proxy):
    """Takes options and passes none of them on, as a pooler whose administrator has it ignore them."""

    def handed_on(self, data: bytes) -> bytes:
        if not is_startup(data):
            return data
        words = data[8:-2].split(b"\0")
        kept = [pair for pair in zip(words[::2], words[1::2], strict=True) if pair[0] != b"options"]
        body = data[4:8] + b"".join(name + b"\0" + value + b"\0" for name, value in kept) + b"\0"
        return struct.pack("!i", len(body) + 4) + body
