"""Encryption of payloads.

AES-256-GCM-SIV (RFC 8452) with a nonce of 96 random bits for each payload. Unlike plain GCM, of which a key is good for
no more than 2^32 payloads with random nonces, two equal nonces would only tell whether the two payloads are equal.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from typing import TYPE_CHECKING, Any, ClassVar

from dbosflow.errors import CodecError, ConfigurationError, MissingKeyError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

ENCRYPTION_KEYS_VARIABLE = "DBOSFLOW_ENCRYPTION_KEYS"
KEY_BYTES = 32
_NONCE_BYTES = 12
_KEY_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")


class Encrypt:
    """Encrypts every payload: whoever reads the database without the key sees ciphertext.

    Needs the extra ``dbosflow[encryption]``. Each payload names the id of its key, so that keys can be replaced: give
    all processes the new key behind the old one, and then the new one first.

    A payload that is encrypted cannot be changed without the key. But whoever may write to the database can remove it,
    or put another one in its place, or plain JSON, which every engine reads.

    Args:
        keys: keys by their ids: 32 random bytes each, or these in base64. The first one encrypts, all decrypt.

    Raises:
        ConfigurationError: a key or an id is not valid, or the library is missing. No message contains a key.
    """

    name: ClassVar = "aes-gcm-siv"
    conceals: ClassVar = True

    def __init__(self, keys: Mapping[str, bytes | str]) -> None:
        if not keys:
            msg = "Encrypt needs a key: Encrypt({'2026-11': key}), with 32 random bytes"
            raise ConfigurationError(msg)
        self._ciphers = {_checked_id(key_id): _cipher(key_id, key) for key_id, key in keys.items()}
        self._key_id = next(iter(self._ciphers))

    def __repr__(self) -> str:
        return f"Encrypt(<keys {', '.join(self._ciphers)}>)"

    @classmethod
    def from_environment(cls, variable: str = ENCRYPTION_KEYS_VARIABLE) -> Self:
        """With the keys of an environment variable: ``id:base64``, several of them with commas between them.

        Raises:
            ConfigurationError: the variable is not set, or not valid.
        """
        keys: dict[str, bytes | str] = {}
        for one in filter(None, (part.strip() for part in os.environ.get(variable, "").split(","))):
            key_id, colon, key = one.partition(":")
            if not colon or key_id in keys:
                msg = f"{variable} must hold keys as id:base64, each id once, with commas between them"
                raise ConfigurationError(msg)
            keys[key_id] = key
        if not keys:
            msg = f"{variable} is not set: it must hold keys as id:base64, with commas between them"
            raise ConfigurationError(msg)
        return cls(keys)

    def encode(self, data: bytes, /) -> tuple[str, bytes]:
        """The data encrypted with the first key."""
        nonce = os.urandom(_NONCE_BYTES)
        return self._key_id, nonce + self._ciphers[self._key_id].encrypt(nonce, data, self._bound(self._key_id))

    def decode(self, detail: str, data: bytes, /) -> bytes:
        """The data, decrypted with the key of that id."""
        from cryptography.exceptions import InvalidTag

        cipher = self._ciphers.get(detail)
        if cipher is None:
            raise missing_key(detail)
        try:
            found: bytes = cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], self._bound(detail))
        except (InvalidTag, ValueError) as error:
            msg = (
                f"a payload that is encrypted with key {detail!r} cannot be decrypted: either the key that this "
                "process has under that id is another one, or the payload was changed"
            )
            raise CodecError(msg) from error
        return found

    def _bound(self, key_id: str) -> bytes:
        """What stands with a payload and cannot be changed either."""
        return f"dbosflow/{self.name}:{key_id}".encode()


def missing_key(key_id: str) -> MissingKeyError:
    """The error for a payload whose key is not here."""
    msg = (
        f"a payload is encrypted with key {key_id!r}, which this process does not have: add it to Encrypt(...) in the "
        f"engine's codecs, or to {ENCRYPTION_KEYS_VARIABLE}"
    )
    return MissingKeyError(key_id, msg)


def generate_key() -> str:
    """A new random key for ``Encrypt``, in base64."""
    return base64.b64encode(os.urandom(KEY_BYTES)).decode()


def _checked_id(key_id: object) -> str:
    if not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id):
        msg = f"key id {key_id!r} must be 1 to 64 letters, digits, and . _ - between them"
        raise ConfigurationError(msg)
    return key_id


def _cipher(key_id: str, key: object) -> Any:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
    except ImportError as error:
        msg = "Encrypt needs the library cryptography: pip install 'dbosflow[encryption]'"
        raise ConfigurationError(msg) from error
    raw = _raw(key)
    if raw is None or len(raw) != KEY_BYTES:
        msg = f"key {key_id!r} must be {KEY_BYTES} bytes, or these in base64, as dbosflow.codecs.generate_key() makes"
        raise ConfigurationError(msg)
    try:
        return AESGCMSIV(raw)
    except UnsupportedAlgorithm as error:
        msg = "the OpenSSL of the library cryptography has no AES-GCM-SIV, which is there from version 3.2 on"
        raise ConfigurationError(msg) from error


def _raw(key: object) -> bytes | None:
    if isinstance(key, str):
        try:
            return base64.b64decode(key.encode("ascii"), validate=True)
        except (binascii.Error, ValueError):
            return None
    return key if isinstance(key, bytes) else None
