"""What clients of streams over HTTP cost, beside the recipe of DBOS's documentation: ``python -m benchmarks.sse``."""
