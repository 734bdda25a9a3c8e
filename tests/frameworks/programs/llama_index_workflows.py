"""LlamaIndex workflows: two events at a time for one step of theirs. Its tasks have no names: we name what is done."""

from __future__ import annotations

from workflows import Context, Workflow
from workflows import step as node
from workflows.events import Event, StartEvent, StopEvent

from dbosflow import branch, step, workflow


class Bought(Event):
    """An item is there."""

    said: str


class Wanted(Event):
    """An item is wanted."""

    item: str


@step
async def reserve(item: str) -> str:
    return f"reserved {item}"


@step
async def charge(item: str) -> str:
    return f"charged {item}"


class Shop(Workflow):
    """Buys two items side by side."""

    @node
    async def begin(self, ctx: Context, ev: StartEvent) -> Wanted | None:
        """Wants two."""
        for item in ("tea", "milk"):
            ctx.send_event(Wanted(item=item))
        return None

    @node(num_workers=2)
    async def buy(self, ev: Wanted) -> Bought:
        """Two steps."""
        with branch(f"buy:{ev.item}"):
            return Bought(said=f"{await reserve(ev.item)}, {await charge(ev.item)}")

    @node
    async def end(self, ctx: Context, ev: Bought) -> StopEvent | None:
        """Waits for both."""
        both = ctx.collect_events(ev, [Bought, Bought])
        return None if both is None else StopEvent(result=sorted(one.said for one in both))


@workflow(name="llama-index-workflows program")
async def program() -> list[str]:
    """A step before, the graph, and a step behind it, which the body itself takes."""
    await reserve("a table")
    return [*await Shop(timeout=None).run(), await charge("all")]
