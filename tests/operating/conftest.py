"""Tests of what goes on behind users' backs, with a look inside. The fixtures are those of the behaviour tests."""

from __future__ import annotations

from tests.behaviour.conftest import _ledger_file, client, engine, start_program

__all__ = ["_ledger_file", "client", "engine", "start_program"]
