"""Time, threads, connections, background services, and which process this is."""
