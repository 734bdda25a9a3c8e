"""Starts and messages in a user's own transaction: ``engine.start_in`` and ``engine.send_in``."""
