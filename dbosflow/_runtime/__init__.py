"""The asyncio part: how workflows run, what they write, what their readers see, and how another worker takes over.

Rooms, from the lowest to the highest. A lower one never imports a higher one, types included; a contract of
import-linter holds it. ``docs/architecture.md`` follows a value, a step and a takeover through them.

```text
process      time, threads, connections, background services, and which process this is
runs         the state of a run, and what it hands to the journal: entries, and the buffer that holds them
wakeups      hints within a process (topics) and between processes (listener, notifier)
replay       branches of a workflow, and the delivery of outcomes in their recorded order
leases       ownership: the worker's row and its renewal, and the workflows that are taken from dead workers
streams      what runs and outside writers write to streams, and the cursors of their readers
repository   queries for workflows, steps and streams, sent over the pool
journal      group commit with output-commit order: one statement for the records of many runs
execution    a run, and what drives it: bodies, drivers of both colours, cancels, quarantine
operations   what a body can do durably: steps, sleeps, children, reads, writes, loops
queues       workflows that wait for a worker: enqueued, claimed
schedules    workflows that are started at certain times: what is due, who starts it, what code declares
engine       the inner half of an engine: its services, opened and closed in order
```
"""
