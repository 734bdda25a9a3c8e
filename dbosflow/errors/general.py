"""Errors about settings, the database, the engine and values; and the root of all."""

from __future__ import annotations


class DbosflowError(Exception):
    """The root of every error that dbosflow raises."""


class ConfigurationError(DbosflowError):
    """A setting is wrong or missing. The message says which one, and what to write instead."""


class DefinitionError(DbosflowError):
    """A function cannot be decorated or called in this way. The message says what to write instead."""


class DatabaseUnavailableError(DbosflowError):
    """No connection to Postgres could be made within the time allowed."""


class SchemaError(DbosflowError):
    """The database's schema and this version of dbosflow do not fit together."""


class PermissionDeniedError(DbosflowError):
    """The database role lacks a privilege. The message says on which object. Nothing was written."""


class OutdatedWorkersError(DbosflowError):
    """Workers of an older version are live, and cannot carry out what was asked for. The message names them."""


class EngineClosedError(DbosflowError):
    """The engine is not open. Open it with ``with``, ``async with`` or ``open()`` first."""


class SerializationError(DbosflowError):
    """JSON cannot carry a value under its declared type. The message names the function and the type."""


class CodecError(DbosflowError):
    """A payload in the database cannot be decoded by the codecs of this process. Nothing is lost by that."""


class MissingKeyError(CodecError):
    """A payload is encrypted with a key that this process does not have."""

    def __init__(self, key_id: str, message: str) -> None:
        super().__init__(key_id, message)
        self.key_id = key_id
        """The id of the key."""

    def __str__(self) -> str:
        return str(self.args[1])
