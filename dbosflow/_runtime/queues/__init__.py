"""Workflows that wait for a worker: enqueued by any engine, claimed by workers."""
