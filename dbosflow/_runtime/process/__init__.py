"""Time, threads, connections, background services, and the identity of this process."""
