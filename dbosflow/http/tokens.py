"""Signed permissions to read, for clients that cannot send headers, as an ``EventSource`` cannot.

A token is a JSON Web Token (RFC 7519), signed with HMAC-SHA-256. It says which workflow and which of its streams may be
read, and until when. It permits nothing else.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbosflow._records.spaces import check_own_key
from dbosflow.config import check_identifier, check_seconds
from dbosflow.errors import ConfigurationError
from dbosflow.streams.declared import Stream

try:
    import jwt
except ImportError:
    raise ConfigurationError("read tokens need PyJWT: pip install 'dbosflow[http]'") from None

if TYPE_CHECKING:
    from collections.abc import Mapping

_AUDIENCE = "dbosflow:read"
_TYPE = "dbosflow-read+jwt"
_ALGORITHM = "HS256"
_SHORTEST = 32
"""Bytes of a secret: as many as the hash has (RFC 7518, 3.2)."""


@dataclass(frozen=True, slots=True)
class Permit:
    """What a token permits: to read one stream, or all that are served, of one workflow."""

    workflow_id: str
    stream: str | None
    expires_at: float
    """As ``time.time()`` has it."""
    caller: str

    def permits(self, workflow_id: str, stream: str | None) -> bool:
        """Whether a stream may be read."""
        return self.workflow_id == workflow_id and self.stream in {None, stream}


class ReadTokens:
    """Signs and checks tokens that permit to read.

    Args:
        secrets: at least 32 random bytes each, like ``secrets.token_bytes(32)``, the same in all servers. The first one
            signs; the others are checked, too, so that a secret can be replaced.

    Raises:
        ConfigurationError: there is no secret, or one is too short.
    """

    def __init__(self, *secrets: bytes | str) -> None:
        self._secrets = [one.encode() if isinstance(one, str) else one for one in secrets]
        if not self._secrets or any(len(one) < _SHORTEST for one in self._secrets):
            raise ConfigurationError(f"ReadTokens needs secrets of at least {_SHORTEST} random bytes")

    def __repr__(self) -> str:
        return f"<ReadTokens with {len(self._secrets)} secrets>"

    def sign(
        self,
        workflow_id: str,
        stream: str | Stream[Any, Any] | None = None,
        *,
        expires_in: float = 3600.0,
        caller: str = "",
    ) -> str:
        """A token that permits to read a stream. A client sends it as the parameter ``token``, or as a bearer token.

        Args:
            workflow_id: the workflow that has the stream.
            stream: the stream, or its key; ``None``: each that the application serves of the workflow.
            expires_in: seconds after which it permits nothing any more. Answers that go on end then.
            caller: the name of whom it is for.

        Raises:
            ConfigurationError: an argument is not valid.
        """
        claims: dict[str, Any] = {
            "aud": _AUDIENCE,
            "sub": check_identifier("workflow id", workflow_id),
            "exp": time.time() + check_seconds("expires_in", expires_in),
        }
        if stream is not None:
            claims["stream"] = stream.key if isinstance(stream, Stream) else check_own_key(stream)
        if caller:
            claims["caller"] = caller
        return jwt.encode(claims, self._secrets[0], _ALGORITHM, headers={"typ": _TYPE})

    def verify(self, token: str) -> Permit | None:
        """What a token permits; ``None`` if it is not valid, or not any more."""
        for secret in self._secrets:
            try:
                claims = jwt.decode(
                    token, secret, [_ALGORITHM], audience=_AUDIENCE, options={"require": ["aud", "exp", "sub"]}
                )
            except jwt.PyJWTError:
                continue
            return _permit(claims)
        return None

    @staticmethod
    def is_one(token: str) -> bool:
        """Whether a bearer token says of itself that it is one of these, and not one that ``authorize`` knows."""
        try:
            return jwt.get_unverified_header(token).get("typ") == _TYPE
        except jwt.PyJWTError:
            return False


def _permit(claims: Mapping[str, Any]) -> Permit:
    return Permit(claims["sub"], claims.get("stream"), float(claims["exp"]), claims.get("caller", ""))
