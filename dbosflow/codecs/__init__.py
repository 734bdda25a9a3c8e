"""Codecs: what payloads pass on their way to the database, and back. See docs/codecs.md."""

from __future__ import annotations

from dbosflow.codecs.codec import PayloadCodec
from dbosflow.codecs.compress import Compress
from dbosflow.codecs.encrypt import ENCRYPTION_KEYS_VARIABLE, Encrypt, generate_key

__all__ = ["ENCRYPTION_KEYS_VARIABLE", "Compress", "Encrypt", "PayloadCodec", "generate_key"]
