"""Errors of transactions: what the function of one may not do."""

from __future__ import annotations

from dbosflow.errors.general import DbosflowError


class TransactionError(DbosflowError):
    """The function of a ``@transaction`` did what only the engine may do, or what a transaction cannot hold.

    Its rows are rolled back, unless it has ended its transaction itself. The message says what to write instead.
    """
