"""Workflows that wait for a worker: enqueued by anybody, claimed by workers."""
