"""Checks in the database, at each commit of a status, that no claim leaves more running than the queue's limits allow.

The check is a constraint trigger that is deferred to the commit. It takes turns by an advisory lock that the
transaction keeps until it is over: so each check sees all commits before it, and the log has their order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.protocol.schedules import Database

WATCH = """
CREATE TABLE public.status_log (
    number bigint GENERATED ALWAYS AS IDENTITY, id text, queue text, before text, after text,
    running bigint, allowed integer, in_worker bigint, allowed_in_worker integer,
    in_partition bigint, allowed_in_partition integer
);
CREATE FUNCTION public.watch_status() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    base text := regexp_replace(split_part(NEW.queue, chr(31), 1), '^dbosflow/pinned/[^/]*/', '');
    limits dbosflow.queue;
BEGIN
    PERFORM pg_advisory_xact_lock(4711);
    SELECT * INTO limits FROM dbosflow.queue q WHERE q.name = base AND q.settled;
    INSERT INTO public.status_log
        (id, queue, before, after, running, allowed, in_worker, allowed_in_worker, in_partition, allowed_in_partition)
    SELECT NEW.id, base, CASE WHEN TG_OP = 'UPDATE' THEN OLD.status END, NEW.status,
           count(*), limits.concurrency, count(*) FILTER (WHERE w.worker_id = NEW.worker_id), limits.worker_concurrency,
           count(*) FILTER (WHERE split_part(w.queue, chr(31), 2) = split_part(NEW.queue, chr(31), 2)),
           limits.partition_concurrency
    FROM dbosflow.workflow w
    WHERE w.status = 'running'
      AND regexp_replace(split_part(w.queue, chr(31), 1), '^dbosflow/pinned/[^/]*/', '') = base;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER watch_status AFTER INSERT OR UPDATE ON dbosflow.workflow
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.watch_status();
"""

_BEYOND = """
SELECT id, queue, running, allowed, in_worker, allowed_in_worker, in_partition, allowed_in_partition
FROM public.status_log
WHERE after = 'running' AND before IS DISTINCT FROM 'running'
  AND (running > allowed OR in_worker > allowed_in_worker OR in_partition > allowed_in_partition)
"""


async def watch(db: Database) -> None:
    """From here on every change of a status is checked."""
    await db.rows(WATCH)


async def beyond(db: Database) -> list[tuple[object, ...]]:
    """The claims that left more running than was allowed at their commit."""
    return await db.rows(_BEYOND)
