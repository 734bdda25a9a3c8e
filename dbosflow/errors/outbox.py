"""Errors of starts and messages in a user's own transaction."""

from __future__ import annotations

from dbosflow.errors.general import DbosflowError


class NoTransactionError(DbosflowError):
    """The connection has no transaction that could commit: it is in autocommit, closed, or the transaction has failed.

    Nothing was written. The message says how to begin a transaction.
    """


class WrongDatabaseError(DbosflowError):
    """The connection leads to another database than the engine's. Nothing was written."""
