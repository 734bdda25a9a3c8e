"""The envelope that a payload stands in once codecs have changed it, and the chain of codecs that makes and opens it.

```text
{"dbosflow/codec":["zlib","aes-gcm-siv:2026-11"],"data":"<base64>"}     in the order in which they were applied
{"dbosflow/codec":[],"data":<JSON>}                                     a user's value that looks like an envelope
```

An envelope is JSON, and stands for a single payload: a value of a stream has one of its own, so that blocks can be
merged, and people can unpack them, without the key. It is written in exactly this form, by which it is recognized:
Postgres keeps the text of JSON as it came, and what SQL makes of ``jsonb`` never looks like it.
"""

from __future__ import annotations

import binascii
import json
import os
import re
from typing import TYPE_CHECKING, Any

from dbosflow.codecs.compress import Compress
from dbosflow.codecs.encrypt import ENCRYPTION_KEYS_VARIABLE, Encrypt, missing_key
from dbosflow.errors import CodecError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dbosflow.codecs.codec import PayloadCodec

MARK = '{"dbosflow/codec":['
"""How an envelope begins. No other text in the database contains it, but for what was stored before there were any."""
_AS_IT_IS = f'{MARK}],"data":'
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_MEMBERS = ("name", "conceals", "encode", "decode")


class Codecs(tuple["PayloadCodec", ...]):
    """A checked chain of codecs. Empty, it leaves payloads as they are."""

    __slots__ = ()

    @classmethod
    def checked(cls, codecs: object) -> Codecs:
        """The chain of these codecs; of ``None``: encryption, if the environment has keys for it."""
        if isinstance(codecs, Codecs):
            return codecs
        if codecs is None:
            return cls((Encrypt.from_environment(),)) if os.environ.get(ENCRYPTION_KEYS_VARIABLE) else NO_CODECS
        if not isinstance(codecs, list | tuple) or not all(hasattr(one, name) for one in codecs for name in _MEMBERS):
            msg = "setting codecs must be a list of codecs, such as [Compress(), Encrypt(keys)]"
            raise ConfigurationError(msg)
        names = [one.name for one in codecs]
        for name in names:
            if not isinstance(name, str) or not _NAME.fullmatch(name) or names.count(name) > 1:
                msg = (
                    f"setting codecs: a codec's name {name!r} must be 1 to 64 letters, digits, and . _ - between them, "
                    "and each codec there once (an Encrypt takes several keys)"
                )
                raise ConfigurationError(msg)
        return cls(codecs)

    @property
    def conceals(self) -> bool:
        """Whether the database is to learn nothing of the payloads."""
        return any(codec.conceals for codec in self)

    def seal(self, text: str) -> str:
        """What is stored for a payload, both as JSON.

        Raises:
            ValueError: a codec does not encode it. So its statement is refused for its data, and not sent again.
        """
        labels: list[str] = []
        data = b""
        for codec in self:
            made = _encoded(codec, data if labels else text.encode())
            if made is not None:
                detail, data = made
                labels.append(f"{codec.name}:{detail}" if detail else codec.name)
        if labels:
            names = json.dumps(labels, separators=(",", ":"))[1:-1]
            return f'{MARK}{names}],"data":"{binascii.b2a_base64(data, newline=False).decode()}"}}'
        return f"{_AS_IT_IS}{text}}}" if MARK in text else text

    def open(self, text: str) -> str:
        """The payload of an envelope.

        Raises:
            CodecError: it cannot be had here. A ``MissingKeyError`` says which key is missing.
        """
        if text.startswith(_AS_IT_IS):
            return text[len(_AS_IT_IS) : -1]
        labels, data = _parsed(text)
        for label in reversed(labels):
            data = self._decoded(label, data)
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            msg = f"a payload encoded by {', '.join(labels)} is damaged"
            raise CodecError(msg) from error

    def _decoded(self, label: str, data: bytes) -> bytes:
        name, _, detail = label.partition(":")
        codec = next((one for one in (*self, *_ALWAYS) if one.name == name), None)
        if codec is None:
            if name == Encrypt.name:
                raise missing_key(detail)
            msg = f"a payload is encoded by {label!r}, and this engine has no codec of that name"
            raise CodecError(msg)
        try:
            return bytes(codec.decode(detail, data))
        except CodecError:
            raise
        except Exception as error:  # the code of a user's codec may raise anything
            msg = f"a payload cannot be decoded by {label!r}: {type(error).__name__}"
            raise CodecError(msg) from error

    def renewed(self, text: str) -> str:
        """What is stored from now on for a payload, by what is stored: the same if it is encrypted as it would be now.

        What was compressed stays so, also if this chain has no compression.

        Raises:
            CodecError: the payload cannot be had here.
        """
        found = labels_of(text)
        compresses = Compress.name in found and Compress.name not in [codec.name for codec in self]
        chain = Codecs((Compress(), *self)) if compresses else self
        made = chain.seal(self.open(text) if text.startswith(MARK) else text)
        return text if self._concealed(labels_of(made)) == self._concealed(found) else made

    def _concealed(self, labels: Iterable[str]) -> list[str]:
        names = {codec.name for codec in self if codec.conceals}
        return [label for label in labels if label.partition(":")[0] in names]

    def __getnewargs__(self) -> Any:
        raise TypeError("codecs hold keys, and are not pickled")


def _encoded(codec: PayloadCodec, data: bytes) -> tuple[str, bytes] | None:
    try:
        made = codec.encode(data)
        if made is not None:
            detail, found = made
            return str(detail), bytes(found)
    except Exception as error:  # the code of a user's codec may raise anything
        msg = f"the codec {codec.name!r} does not encode a payload: {type(error).__name__}: {error}"
        raise ValueError(msg) from error
    return None


NO_CODECS = Codecs()
_ALWAYS: Iterable[PayloadCodec] = (Compress(),)
"""What every chain can decode."""


def labels_of(text: str) -> tuple[str, ...]:
    """The codecs by which a payload was encoded, in this order, each with its detail. None of them is needed here."""
    if not text.startswith(MARK):
        return ()
    try:
        return tuple(_parsed(text)[0])
    except CodecError:
        return ()


def _parsed(text: str) -> tuple[list[str], bytes]:
    """The labels and the data of an envelope."""
    try:
        found = json.loads(text)
        labels, data = found["dbosflow/codec"], binascii.a2b_base64(found["data"], strict_mode=True)
        if found.keys() == {"dbosflow/codec", "data"} and labels and all(isinstance(label, str) for label in labels):
            return labels, data
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    msg = "a payload looks like one that codecs have made, and is damaged"
    raise CodecError(msg)
