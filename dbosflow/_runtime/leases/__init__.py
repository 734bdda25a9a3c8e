"""Ownership: a worker's row, its renewal, and the workflows that are taken from dead workers."""
