"""The inner half of an engine: its services, opened and closed in order."""
