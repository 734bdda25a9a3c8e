"""A primary and a synchronous standby; its nemesis loses the primary or the standby. URLs name both.

Whatever was acknowledged is on both, so nothing of it is lost. The old primary becomes the next standby.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

from tests.chaos.nemeses.proxy import Proxy
from tests.chaos.nodes.pair import Pair
from tests.chaos.report import DurationSample
from tests.chaos.topologies.topology import Topology
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Self

    from tests.chaos.nemeses.plan import Fault
    from tests.chaos.topologies.topology import Route

_PATIENCE = 60.0


class StandbyTopology(Topology):
    """Two servers, of which one is the primary, and the faults by which they change places."""

    kinds: Mapping[str, int] = {
        "promote": 3,  # the primary crashes, the standby is promoted
        "freeze and promote": 3,  # the primary falls silent, and is shut off when the standby has been promoted
        "lose standby": 1,  # no commit is acknowledged while the standby is away
    }

    def __init__(self) -> None:
        self._pair = Pair()
        super().__init__(self._pair)
        self._outages = DurationSample()
        self._written_after = DurationSample()

    def route(self) -> Route:
        return PairRoute([node.socket for node in self._pair.nodes])

    async def inject(self, fault: Fault) -> None:
        await asyncio.to_thread(self._inject, fault)

    def figures(self) -> list[str]:
        return [
            f"from the primary's end to the promotion:  {self._outages}",
            f"from the promotion to the next new record: {self._written_after}",
        ]

    def _inject(self, fault: Fault) -> None:
        pair = self._pair
        eventually(
            pair.in_step, timeout=_PATIENCE
        )  # what a restarted primary shows again, the standby may not have yet
        began = time.monotonic()
        if fault.kind == "lose standby":
            pair.standby.stop("stop immediate")
            time.sleep(fault.seconds)  # the fault itself
            pair.standby.start()
        else:
            if fault.kind == "promote":
                pair.stop("stop immediate")
            else:
                pair.primary.freeze()
            time.sleep(fault.seconds)  # until somebody decides that it will not come back
            pair.promote()
            if fault.kind != "promote":
                pair.standby.kill()
            self._await_work(began)
            pair.join()
        eventually(pair.in_step, timeout=_PATIENCE)

    def _await_work(self, began: float) -> None:
        promoted = time.monotonic()
        self._outages.add(promoted - began)
        ((at,),) = self._pair.primary.ask("SELECT now()")
        newer = "SELECT EXISTS (SELECT FROM dbosflow.step WHERE recorded_at > %s)"
        eventually(lambda: self._pair.primary.ask(newer, at) == [(True,)], timeout=_PATIENCE)
        self._written_after.add(time.monotonic() - promoted)


class PairRoute:
    """A route to each of the two servers, which share their faults."""

    def __init__(self, targets: list[Path]) -> None:
        self._proxies = [Proxy(target) for target in targets]
        self._resources = ExitStack()

    def url(self, name: str) -> str:
        """The address of whichever is the primary."""
        hosts = ",".join("127.0.0.1" for _ in self._proxies)
        ports = ",".join(str(proxy.port) for proxy in self._proxies)
        options = "sslmode=disable&gssencmode=disable&target_session_attrs=read-write"
        return f"postgresql://dbosflow@/postgres?host={hosts}&port={ports}&{options}&application_name={name}"

    def inject(self, kind: str, seconds: float) -> None:
        """Injects one fault into all of them; returns when it is over."""
        with ThreadPoolExecutor(len(self._proxies)) as threads:
            for active in [threads.submit(proxy.inject, kind, seconds) for proxy in self._proxies]:
                active.result()

    def __enter__(self) -> Self:
        for proxy in self._proxies:
            self._resources.enter_context(proxy)
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()
