"""All the asyncio: how workflows run, what they write, who reads it, and who takes over.

Rooms, from the lowest to the highest. A lower one never imports a higher one, types included; a contract of
import-linter holds it. ``docs/architecture.md`` follows a value, a step and a take-over through them.

```text
process      time, threads, connections, background services, and which process this is
runs         what a run hands to the journal: entries, and the buffer that holds them
wakeups      hints within a process (topics) and between processes (listener, notifier)
replay       branches of a workflow, and the delivery of outcomes in their recorded order
leases       who owns what: the worker's row and its renewal, and what is taken from the dead
streams      what is written to streams (by runs, by outsiders), and the cursors of their readers
repository   questions about workflows, steps and streams, asked over the pool
journal      group commit with output-commit order: one statement for the records of many runs
execution    a run, and what drives it: bodies, drivers of both colours, cancels, quarantine
operations   what a body can do durably: steps, sleeps, children, reads, writes, loops
queues       workflows that wait for a worker: enqueued, claimed
engine       the inner half of an engine: its services, opened and closed in order
```
"""
