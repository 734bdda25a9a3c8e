"""Public suites and official clients, against a server of ours: ``python -m tests.conformance``."""
