"""What a codec is."""

from __future__ import annotations

from typing import Protocol


class PayloadCodec(Protocol):
    """One link of the chain that payloads pass on their way to the database, and back in the opposite order.

    Your own codec is an object with these members. Its methods are called on the engine's event loop and on threads, so
    they must not wait, and what one process has encoded every other one must be able to decode.
    """

    @property
    def name(self) -> str:
        """Stands with each payload, so it never changes: letters, digits, and ``.``, ``_`` and ``-`` between them."""

    @property
    def conceals(self) -> bool:
        """Whether the database is to learn nothing of the payloads. Then no checksums of them are stored either."""

    def encode(self, data: bytes, /) -> tuple[str, bytes] | None:
        """What is stored for the data, and a detail that ``decode`` gets, such as the id of a key.

        ``None``: this payload is left as it is. An error ends the workflow whose payload it is.
        """

    def decode(self, detail: str, data: bytes, /) -> bytes:
        """The data. Raises ``CodecError``, or any other error, if that cannot be had here."""
